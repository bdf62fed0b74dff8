# What runs around a cell in bash. `report`, `eval` and `code` become files of the supervisor; the others are sent.
#
# `\builtin` defeats aliases (the backslash) and functions (the word). All goes to /dev/null, so that neither set -x
# nor a DEBUG trap shows our lines. The shell is interactive without a terminal: so it survives syntax errors, set -u
# and failing special builtins, and SIGINT takes it to its next line instead of ending it.
#
# The one variable, $__, says where a cell stands: "CODE TEXT" (the last exit code and the cell: sent, or it runs; it
# cannot see its token), "CODE FLAGS TOKEN" (to be reported), nothing (reported).
#
# What bash reads it parses, at about 0.1 us a byte, before it runs any of it. So the first line is short, and what can
# wait until the fences are on their way is in the second.

# After a cell whose own line has not come to its end: both end fences and what else the line would have done; and the
# builtins that we need, if a cell has disabled one.
#: report
\builtin : || \enable builtin; \builtin enable . eval export kill printf read return set trap;
case ${POSIXLY_CORRECT-} in rescue) \unset -f builtin; \unset POSIXLY_CORRECT;; esac;
case $__ in *\ *) { \builtin printf '\036@PREFIX@%s end %s\n' "${__##* }" "${__% *} 1${!-quiet}" >@FD@/1 && \builtin printf '\036@PREFIX@%s end\n' "${__##* }" >@FD@/4; } ||
  \builtin kill -SYS @PID@ "$$";; esac;
\builtin set +axvH;
\builtin read -r __ </proc/loadavg;
{ \builtin printf ': %-60s\n' "$__"; \builtin export -p; \builtin printf '__=restored\n'; } >|@FD@/7;
\builtin trap -p ERR DEBUG >@FD@/9; \builtin trap - ERR DEBUG; [[ ${TMOUT-} ]] && \builtin declare -p TMOUT >>@FD@/9 && \builtin unset TMOUT;
\builtin printf -v __ %s ''; PS0= PS1= PS2= PROMPT_COMMAND=

# The cell with $? as the last cell left it and its ERR and DEBUG traps, which are back only inside: so they see the cell
# and not this file. `&& :` keeps set -e and the ERR trap away from the code that is put back into $?. Behind the traps a
# subshell does that: DEBUG does not see it, except under `set -T`. (In posix mode `trap -p` also names what is not set.)
#: eval
if [[ -s @FD@/9 ]]; then
  if [[ $__ = 0\ * || $- = *T* ]]; then \builtin eval "\builtin . @FD@/9;${__#* }";
  else \builtin eval "\builtin . @FD@/9;(\builtin exit ${__%% *}) && \builtin :;${__#* }"; fi;
else [[ $__ = 0\ * ]] || \builtin . @FD@/6 && \builtin :; \builtin eval -- "${__#* }"; fi

# For `eval` the code that $? shall be; sent instead of it in the usual case, where that is 0 and no traps can be kept.
#: code
case $__ in 0\ *) \builtin eval -- "${__#* }";; *) \builtin return "${__%% *}";; esac

# stdout and stderr were /dev/null while the shell greeted. A checkpoint comes first, then the newer exports. While it is
# read, a function keeps away what belongs to one shell alone, and what is read-only.
#: init
exec >@FD@/1 2>@FD@/4;
{ \builtin shopt -s execfail; \builtin set +o history +H; \builtin history -c; \builtin unset HISTFILE MAILCHECK; PS0= PS1= PS2= PROMPT_COMMAND= __=;
  declare() { case $1 in *r*) \builtin return;; esac; case ${2%%=*} in _|__|BASH*|SHELLOPTS|PWD|PS[0-4]|PROMPT_COMMAND|DIRSTACK|FUNCNAME|GROUPS|PIPESTATUS|LINENO|*RANDOM) ;;
    SECONDS|EPOCH*|COMP_*|HIST*|SHLVL|TERM) ;; *) \builtin declare -g "$@";; esac; };
  \builtin . @FD@/../cwd/checkpoint; \builtin unset -f declare;
  case $__ in full) \builtin printf '\036@PREFIX@@TOKEN@ full\n' >@FD@/1;; esac; PS0= PS1= PS2= PROMPT_COMMAND= __=;
  \builtin . @FD@/7; case $__ in restored) \builtin cd -- "$PWD" || __=;; esac;
  \builtin printf '\036@PREFIX@@TOKEN@ init %s %s\n' "$$" "$__" >@FD@/1; \builtin unset __; } >/dev/null 2>&1

# The checkpoint, sent when no cell has come for a moment. Aliases last: they would change the lines behind them.
#: save
{ \builtin shopt -p; \builtin umask -p; \builtin declare -p; \builtin printf '\\unset -f declare\n'; \builtin declare -f;
  \builtin set +o; \builtin alias -p; \builtin printf '__=full\n'; } 2>/dev/null >|@FD@/../cwd/checkpoint

# Begin fences, which a cell has that does not come right after one that has left no jobs (see ShellProtocol.send). They
# also say that its stdin is open.
#: begin
{ \builtin printf '\036@PREFIX@@TOKEN@ begin\n'>@FD@/1&&\builtin printf '\036@PREFIX@@TOKEN@ begin\n'>@FD@/4||\builtin kill -SYS @PID@ "$$";

# From now on print elsewhere: all that goes to where it went until now, and what the supervisor's files print. A function
# named `exec` is passed by in posix mode.
#: turn
for __ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  if [[ /proc/$$/fd/$__ -ef @WAS_OUT@ ]]; then __="$__>@FD@/1"; elif [[ /proc/$$/fd/$__ -ef @WAS_ERR@ ]]; then __="$__>@FD@/4"; else continue; fi;
  if \builtin declare -F exec >/dev/null; then \builtin set -o posix; \builtin eval "\exec $__"; \builtin set +o posix;
  else \builtin eval "\exec $__"; fi; done;
\builtin printf '%s\n' '@REPORT@' >|@FD@/3; \builtin printf '%s\n' '@EVAL@' >|@FD@/5; __=; \builtin printf '\036@PREFIX@@TOKEN@ turned\n' >@FD@/1

# The cell and its end fences, which also say whether stdin is still a pipe of lines (a cell may have closed it), and $!.
#: run
__='@CODE@ @TEXT@';@BEGIN@\. @FD@/@FILE@@BEGUN@<@STDIN@;{ __="$? $- @TOKEN@";@RESET@[[ -p /dev/fd/0 ]];\builtin printf '\036@PREFIX@@TOKEN@ end %s\n' "$__ $?${!-quiet}"@OUT@&&\builtin printf '\036@PREFIX@@TOKEN@ end\n'>@FD@/4&&\builtin printf -v __ +;@WARY@PS0= PS1= PS2= PROMPT_COMMAND=;}@NULL@||:

#: begun
;}

# A `[[` that is left open confuses bash: it takes no reserved word in the lines that follow until there is another error.
#: reset
[[ $__ = 0\ * ]]||\builtin eval ")" 2>/dev/null||:;

# Once a cell may have set traps or options, disabled builtins that the next one's lines need, or made aliases: with one
# of a word that our lines need, none of them could be read any more. ERR and DEBUG traps are kept for the next cell, and
# TMOUT, which would end the shell while it waits for that.
#: wary
\builtin trap -p ERR DEBUG>@FD@/9;\builtin trap - ERR DEBUG;[[ ${TMOUT-} ]]&&\builtin declare -p TMOUT>>@FD@/9&&\builtin unset TMOUT;
\builtin enable . eval export kill printf read return set trap;
\builtin unalias if then else fi case esac { } [[;
\builtin set +axvH;

# Where the end fence of stdout goes; where no cell can have moved the shell's own stdout, to that. That of stderr goes to
# the supervisor's in any case: where that has gone, no cell can have run.
#: out
>@FD@/1

#: null
 &>/dev/null

# The next line: while the outcome travels, `save` or `mark`. After an error that took the shell out of the line above, or
# a failed fence, `report`. (A function named `builtin` is found by the $__ that stays: see `last`.)
#: again
case ${__-} in +)@KEEP@\builtin printf -v __ %s '';;'');;*\ @TOKEN@)\. @FD@/3||\kill -SYS @PID@ "$$";;*)__="$? $- @TOKEN@";\. @FD@/3;;esac@NULL@||:

# What a new shell would need: the last process id (the cell's processes have later ones) and the exports; after a cell
# that cannot have changed these, only the number, written over the one that is there.
#: keep
{ \builtin read -r __;\builtin printf ': %-60s\n' "$__";\builtin export -p;\builtin printf '__=restored\n';}</proc/loadavg>|@FD@/7;

#: mark
{ \builtin read -r __;\builtin printf ': %-60s\n' "$__";}</proc/loadavg 1<>@FD@/7;

# Sent when nothing has been heard for a while, and after signals: dash forgets the lines that it had read ahead.
#: recover
{ case ${__-} in *\ @TOKEN@);; *\ *)__="$? $- @TOKEN@";;esac;\. @FD@/3;} &>/dev/null||:

# Sent when that has not helped. Still not reported: a function named `builtin` (in posix mode the special
# builtins are found before functions), a readonly __, or no descriptor left to open /dev/null: then the shell must end,
# by a signal that nothing else uses, rather than leave the client waiting. The exit code is then reported as unknown.
# (In `run` it does so at once when the supervisor is gone.)
#: last
{ case ${__-} in *\ *) POSIXLY_CORRECT=rescue; \. @FD@/3; case $__ in *\ *) \builtin kill -SYS @PID@ "$$";; esac;; esac; } >/dev/null 2>&1 || \builtin kill -SYS @PID@ "$$"
