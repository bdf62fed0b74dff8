# What runs around a cell in bash. `\builtin` defeats aliases (the backslash) and functions (the word). Groups go to
# /dev/null, so that neither set -x nor a DEBUG trap shows our lines. @NAMES@ are filled in by protocol.py.
# The shell is interactive without a terminal: so it survives syntax errors, set -u, failing special builtins, and
# SIGINT takes it to its next line instead of ending it.

#: init
exec >|@OUT@ 2>|@ERR@; { \builtin shopt -s execfail; \builtin set +o history +H; \builtin unset HISTFILE; PS0= PS1= PS2= PROMPT_COMMAND= __=;
  \builtin . @STATE@; case $__ in restored) \builtin cd -- "$PWD" || __=;; esac;
  \builtin printf '\036@TOKEN@ init %s\n' "$__" >|@OUT@; } >/dev/null 2>&1

# The cell's text, as data; the number at its head is the last exit code. supervisor.sh holds what evaluates it.
#: text
{ __='@CODE@ @TEXT@'; } >/dev/null 2>&1
#: input
{ \builtin printf %b '@INPUT@' >|@STDIN@ || __='125 \builtin echo "sandbox: no room for the stdin of the cell" >&2'; } >/dev/null 2>&1

#: before
{ \builtin printf '\036@TOKEN@ begin %s\n' "$$" >|@OUT@; \builtin printf '\036@TOKEN@ begin\n' >|@ERR@; } >/dev/null 2>&1;
#: run
\builtin . @EVAL@ <@STDIN@;

# `||` keeps set -e and the ERR trap out of here. When not even /dev/null can be opened (no descriptor left), the
# shell ends itself by a signal that nothing else uses: the exit code is then unknown, and reported as that.
#: after
{ __="$? $-"; @REPORT@; } >/dev/null 2>&1 || \builtin kill -SYS "$$"

# Both fences, then what a new shell would need: the last process id (the cell's processes have later ones), exports.
# A DEBUG trap is lifted between cells, so that it does not see our lines.
#: report
\builtin set +xvH;
{ \builtin printf '\036@TOKEN@ end %s\n' "$__" >|@OUT@ && \builtin printf '\036@TOKEN@ end\n' >|@ERR@; } || \builtin kill -SYS "$$";
\builtin read -r __ </proc/loadavg;
{ \builtin printf ': %s\n' "$__"; \builtin export -p; \builtin printf '__=restored\n'; } >|@STATE@; \builtin trap -p DEBUG >|@TRAP@; \builtin trap - DEBUG;
\builtin printf -v __ %s '@TOKEN@'; PS0= PS1= PS2= PROMPT_COMMAND=

# After an error that took the shell out of the line above. A function named `builtin` may be the reason: in posix mode
# unset is found before any function.
#: again
{ case ${__-} in '@TOKEN@') ;; *) __="$? $-"; case :$SHELLOPTS: in *:posix:*) \unset -f builtin;;
  *) POSIXLY_CORRECT=1; \unset -f builtin; \unset POSIXLY_CORRECT;; esac; @REPORT@;; esac; } >/dev/null 2>&1

# Nothing helped (a readonly __): end the shell rather than leave the client waiting.
#: last
{ case ${__-} in '@TOKEN@') ;; *) \builtin kill -SYS "$$";; esac; } >/dev/null 2>&1 || \builtin kill -SYS "$$"
