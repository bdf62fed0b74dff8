# What runs around a cell in bash. Sections without a placeholder but @FD@ are files of the supervisor, read at one
# go; the lines are sent with each cell, and short, for bash reads a pipe byte by byte.
#
# `\builtin` defeats aliases (the backslash) and functions (the word). All goes to /dev/null, so that neither set -x
# nor a DEBUG trap shows our lines. The shell is interactive without a terminal: so it survives syntax errors, set -u
# and failing special builtins, and SIGINT takes it to its next line instead of ending it.
#
# The one variable, $__, says where a cell stands: "CODE TEXT" (the last exit code and the cell), "CODE FLAGS TOKEN"
# (to be reported), nothing (reported).

# After a cell: both end fences. Then what a new shell would need: the last process id (the cell's processes have later
# ones) and the exports. A DEBUG trap is lifted between cells (by the line itself: files do not see it), and -x, -v and -H here: they must not see our lines.
#: report
case ${POSIXLY_CORRECT-} in rescue) \unset -f builtin; \unset POSIXLY_CORRECT;; esac;
\builtin set +xvH;
{ \builtin printf '\036@PREFIX@%s end %s\n' "${__##* }" "${__% *}" >@FD@/1 && \builtin printf '\036@PREFIX@%s end\n' "${__##* }" >@FD@/4; } ||
  \builtin kill -SYS "$$";
\builtin read -r __ </proc/loadavg;
{ \builtin printf ': %s\n' "$__"; \builtin export -p; \builtin printf '__=restored\n'; } >|@FD@/7;
\builtin printf -v __ %s ''; PS0= PS1= PS2= PROMPT_COMMAND=

# The cell itself. `&& :` keeps the ERR trap and set -e away from the code that is put back into $?.
#: eval
[[ -s @FD@/9 ]] && \builtin . @FD@/9; [[ $__ = 0\ * ]] || \builtin . @FD@/6 && \builtin :; \builtin eval "${__#* }"

#: code
\builtin return "${__%% *}"

# stdout and stderr were /dev/null while the shell greeted.
#: init
exec >@FD@/1 2>@FD@/4;
{ \builtin shopt -s execfail; \builtin set +o history +H; \builtin unset HISTFILE; PS0= PS1= PS2= PROMPT_COMMAND= __=;
  \builtin . @FD@/7; case $__ in restored) \builtin cd -- "$PWD" || __=;; esac;
  \builtin printf '\036@PREFIX@@TOKEN@ init %s %s\n' "$$" "$__" >@FD@/1; __=; } >/dev/null 2>&1

# stdin of the next cell, staged before it.
#: input
{ \builtin printf %b '@INPUT@' >|@FD@/8 || __='125 \builtin echo "sandbox: no room for the stdin of the cell" >&2'; } >/dev/null 2>&1

# `||` keeps set -e and the ERR trap out. When not even /dev/null can be opened (no descriptor left), the shell ends
# itself by a signal that nothing else uses: the exit code is then unknown, and reported as that.
#: run
\builtin printf '\036@PREFIX@@TOKEN@ begin\n' >@FD@/1; \builtin printf '\036@PREFIX@@TOKEN@ begin\n' >@FD@/4; __='@CODE@ @TEXT@';
\. @FD@/5 <@STDIN@; { __="$? $- @TOKEN@"; \. @FD@/3; \builtin trap -p DEBUG >@FD@/9; \builtin trap - DEBUG; } >/dev/null 2>&1 || \builtin kill -SYS $$

# The next line, for an error that took the shell out of the line above.
#: again
{ case ${__-} in *\ *) __="$? $- @TOKEN@"; \. @FD@/3; \builtin trap -p DEBUG >@FD@/9; \builtin trap - DEBUG;; esac; } >/dev/null 2>&1 || \builtin kill -SYS $$

# Sent when nothing has been heard for a while, and after signals. Still not reported: a function named `builtin` (in
# posix mode the special builtins are found before functions), or a readonly __: then the shell must end, rather than
# leave the client waiting.
#: last
{ case ${__-} in *\ *) POSIXLY_CORRECT=rescue; \. @FD@/3; case $__ in *\ *) \builtin kill -SYS "$$";; esac;; esac; } >/dev/null 2>&1
