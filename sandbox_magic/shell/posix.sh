# What runs around a cell in a POSIX shell (dash, busybox ash): see bash.sh, which explains each section. `unset` is a
# special builtin, found before functions: it brings `command` back, and `command` makes errors of `.` harmless.
# After an error inside a subshell busybox goes on behind the nearest `command` in the child. Inside a file it would go
# round for ever (hence `eval` without it); in `run` it sees that it is not the shell and ends, with its code.
# A shell that is not interactive would end at SIGINT: there a trap raises an error, which goes no further than that `.`,
# and leaves an I in front, for the code of that error is not that of a signal.

#: report
\unset -f command;
case $__ in *\ *) { \command printf '\036@PREFIX@%s end %s\n' "${__##* }" "${__% *} 1${!-quiet}" >@FD@/1 && \command printf '\036@PREFIX@%s end\n' "${__##* }" >@FD@/4; } ||
  \command kill -SYS @PID@ "$$";; esac;
\command set +axv;
\command read -r __ </proc/loadavg;
{ \command printf ': %-60s\n' "$__"; \command export -p; \command printf '__=restored\n'; } >|@FD@/7;
__= PS1= PS2=

#: eval
\unset -f command;
case $__ in '0 '*) ;; *) \command . @FD@/6 && \command :;; esac; \eval "${__#* }"

#: code
case $__ in 0\ *) \eval "${__#* }";; *) \command return "${__%% *}";; esac

#: init
exec >@FD@/1 2>@FD@/4;
{ \unset -f command; \command set +o history; PS1= PS2= __=; \command export PWD;
  case $- in *i*) ;; *) trap 'case $__ in *\ *) __="I $__"; { : "${__interrupted__?}"; } 2>/dev/null;; esac' INT;; esac;
  \command set -- "$PPID"; \command . @FD@/../cwd/checkpoint; PPID=$1; \command set --;
  case $__ in full) \command printf '\036@PREFIX@@TOKEN@ full\n' >@FD@/1;; esac; PS1= PS2= __=;
  \command . @FD@/7; case $__ in restored) \command cd -- "$PWD" || __=;; esac;
  \command printf '\036@PREFIX@@TOKEN@ init %s %s\n' "$$" "$__" >@FD@/1; \command unset __; } >/dev/null 2>&1

# Functions cannot be listed here.
#: save
{ \unset -f command; \command printf 'umask '; \command umask; \command set;
  \command printf 'while IFS= \\command read -r __; do \\command eval "\\command alias $__"; done <<\\__\n'; \command alias;
  \command printf '__\n'; \command set +o; \command printf '__=full\n'; } 2>/dev/null >|@FD@/../cwd/checkpoint

#: turn
\unset -f command; for __ in 1 2 3 4 5 6 7 8 9; do if \command test "/proc/$$/fd/$__" -ef @WAS_OUT@; then \command eval "\command exec $__>@FD@/1";
  elif \command test "/proc/$$/fd/$__" -ef @WAS_ERR@; then \command eval "\command exec $__>@FD@/4"; fi; done;
\command printf '%s\n' '@REPORT@' >|@FD@/3; \command printf '%s\n' '@EVAL@' >|@FD@/5; __=; \command printf '\036@PREFIX@@TOKEN@ turned\n' >@FD@/1

#: begin
{ \command printf '\036@PREFIX@@TOKEN@ begin\n'>@FD@/1&&\command printf '\036@PREFIX@@TOKEN@ begin\n'>@FD@/4||\command kill -SYS @PID@ "$$";

#: run
@RARE@__='@CODE@ @TEXT@';@BEGIN@\command . @FD@/@FILE@@BEGUN@<@STDIN@;
{ case $?$__ in 0[0-9]*)__="0 $- @TOKEN@";;*)case $__ in I*)__="130 $- @TOKEN@";;*)__="$? $- @TOKEN@";;esac;\unset -f command;case $__ in 0\ *);;*)\command test /proc/self -ef "/proc/$$"||\exit "${__%% *}";;esac;;esac;@RARE@
\command test -p "/proc/$$/fd/0";\command printf '\036@PREFIX@@TOKEN@ end %s\n' "$__ $?${!-quiet}"@OUT@&&\command printf '\036@PREFIX@@TOKEN@ end\n'>@FD@/4||\command kill -SYS @PID@ "$$";__=+ PS1= PS2=;@WARY@}@NULL@||:

#: begun
;}

#: rare
\unset -f command;

#: wary
\command set +axv;

# Where the end fence of stdout goes; where no cell can have moved the shell's own stdout, to that. That of stderr goes to
# the supervisor's in any case: where that has gone, no cell can have run.
#: out
>@FD@/1

#: null
 >/dev/null 2>&1

#: again
case ${__-} in +)@KEEP@__=;;*){ case ${__-} in *\ @TOKEN@);;I*)__="130 $- @TOKEN@";;*\ *)__="$? $- @TOKEN@";;esac;\unset -f command;\command . @FD@/3;} >/dev/null 2>&1;;esac||:

#: keep
{ \command read -r __;\command printf ': %-60s\n' "$__";\command export -p;\command printf '__=restored\n';}</proc/loadavg>|@FD@/7;

#: mark
{ \command read -r __;\command printf ': %-60s\n' "$__";}</proc/loadavg 1<>@FD@/7;

# dash forgets the lines that it had read ahead when SIGINT takes it to its top level, the cell's too: then it was
# interrupted before it began. (Nothing is reported twice: a second pair of fences says nothing.)
#: recover
{ case ${__-} in *\ @TOKEN@);;I*)__="130 $- @TOKEN@";;*\ *)__="$? $- @TOKEN@";;*)__="130 $- @TOKEN@";;esac;\unset -f command;\command . @FD@/3;} >/dev/null 2>&1||:

#: last
{ case ${__-} in *\ *) \unset -f command; \command kill -SYS @PID@ "$$";; esac; } >/dev/null 2>&1 || \command kill -SYS @PID@ "$$"
