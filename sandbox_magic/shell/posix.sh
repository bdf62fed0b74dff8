# What runs around a cell in a POSIX shell (dash, busybox ash): see bash.sh, which explains each line. `unset` is a
# special builtin, found before functions: it brings `command` back, and `command` makes errors of `.` harmless.
# A shell that is not interactive would end at SIGINT: there a trap raises an error, which goes no further than that `.`.

#: init
exec >|@OUT@ 2>|@ERR@; { \unset -f command; \command set +o history; PS1= PS2= __=; \command export PWD;
  case $- in *i*) ;; *) trap 'case $__ in *\ *) { : "${__interrupted__?}"; } 2>/dev/null;; esac' INT;; esac;
  \command . @STATE@; case $__ in restored) \command cd -- "$PWD" || __=;; esac;
  \command printf '\036@TOKEN@ init %s\n' "$__" >|@OUT@; } >/dev/null 2>&1

#: text
{ __='@CODE@ @TEXT@'; } >/dev/null 2>&1
#: input
{ \command printf %b '@INPUT@' >|@STDIN@ || __='125 \command echo "sandbox: no room for the stdin of the cell" >&2'; } >/dev/null 2>&1

#: before
{ \unset -f command; \command printf '\036@TOKEN@ begin %s\n' "$$" >|@OUT@; \command printf '\036@TOKEN@ begin\n' >|@ERR@; } >/dev/null 2>&1;
#: run
\command . @EVAL@ <@STDIN@;

#: after
{ __="$? $-"; @REPORT@; } >/dev/null 2>&1 || \command kill -SYS "$$"

#: report
\unset -f command; \command set +xv;
{ \command printf '\036@TOKEN@ end %s\n' "$__" >|@OUT@ && \command printf '\036@TOKEN@ end\n' >|@ERR@; } || \command kill -SYS "$$";
\command read -r __ </proc/loadavg;
{ \command printf ': %s\n' "$__"; \command export -p; \command printf '__=restored\n'; } >|@STATE@;
__='@TOKEN@'; PS1= PS2=

#: again
{ case ${__-} in '@TOKEN@') ;; *) __="$? $-"; @REPORT@;; esac; } >/dev/null 2>&1

#: last
{ case ${__-} in '@TOKEN@') ;; *) \unset -f command; \command kill -SYS "$$";; esac; } >/dev/null 2>&1 || \command kill -SYS "$$"
