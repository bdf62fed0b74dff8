# What runs around a cell in zsh: see bash.sh, which explains each section. zsh is interactive for the same reasons, so
# what belongs to a person at a prompt is taken away, also after a cell that has put it back (`emulate -R zsh`): prompts
# and what is run for them, spelling correction, history, aliases of reserved words. `eval` reads a cell whole before
# anything of it is run.

# zsh writes its prompt, although it is empty: where a cell has closed stderr, that error would end the next cell.
#: report
\enable . builtin enable eval exec export fc kill printf read return set trap unset;
case $__ in *\ ????????) { \builtin printf '\036@PREFIX@%s end %s\n' "${__##* }" "${__% *} 1$!" >|@FD@/1 && \builtin printf '\036@PREFIX@%s end\n' "${__##* }" >|@FD@/4; } ||
  \builtin kill -SYS @PID@ "$$";; esac;
\builtin set +axv +o promptsp +o promptcr +o banghist +o cshjunkiequotes +o correct +o correctall -o histignorespace -o posixaliases;
\builtin read -r __ </proc/loadavg;
{ \builtin printf ': %-60s\n' "$__"; \builtin export -p; \builtin printf '__=restored\n'; } >|@FD@/7;
\builtin printf -v __ %s ''; PS1= PS2= RPS1= RPS2=

# A DEBUG trap cannot be put away unseen: it fires once more, at the end of the cell. An error that ends a script would
# be 126 as the end of a sourced file.
#: eval
\builtin printf '\036@PREFIX@%s begin\n' "${__%% *}" >|@FD@/1; \builtin printf '\036@PREFIX@%s begin\n' "${__%% *}" >|@FD@/4;
__="${__#* }"; \builtin fc -p;
if [[ -s @FD@/9 ]]; then
  if [[ $__ = 0\ * || $(<@FD@/9) = *\ DEBUG* ]]; then \builtin eval "\builtin . @FD@/9;${__#* }";
  else \builtin eval "\builtin . @FD@/9;\builtin . @FD@/6 && \builtin :;${__#* }"; fi;
else [[ $__ = 0\ * ]] || \builtin . @FD@/6 && \builtin :; { \builtin eval "${__#* }"; } always { { TRY_BLOCK_ERROR=0; } 2>/dev/null; }; fi

#: code
\builtin return "${__%% *}"

#: init
exec >@FD@/1 2>@FD@/4;
{ \builtin fc -p; \builtin unset HISTFILE MAILCHECK; PS1= PS2= RPS1= RPS2= __=;
  \builtin set +m +o promptsp +o promptcr +o banghist +o checkjobs +o hup +o bgnice +o notify +o beep -o interactivecomments -o rmstarsilent -o histignorespace -o posixaliases;
  set() { case $2 in interactive|login|monitor|privileged|restricted|shinstdin|singlecommand|zle) ;; *) \builtin set "$@";; esac; };
  \builtin . @FD@/../cwd/checkpoint; \builtin unset -f set;
  case $__ in full) \builtin printf '\036@PREFIX@@TOKEN@ full\n' >|@FD@/1;; esac; PS1= PS2= RPS1= RPS2= __=;
  \builtin . @FD@/7; case $__ in restored) \builtin cd -- "$PWD" || __=;; esac;
  \builtin printf '\036@PREFIX@@TOKEN@ init %s %s\n' "$$" "$__" >|@FD@/1; \builtin unset __; } >/dev/null 2>&1

# In the checkpoint are the parameters that are neither special nor read-only; the options behind what they could change.
#: save
{ \builtin emulate zsh -c 'builtin setopt extendedglob; builtin printf "umask "; builtin umask;
  builtin typeset -p -- ${${(@k)parameters[(R)^*(special|readonly|hide)*]}:#(__|argv|<->)} IFS PS4 PATH CDPATH FPATH; builtin functions';
  \builtin set +o; \builtin hash -dL; \builtin alias -L; \builtin alias -sL; \builtin printf '__=full\n'; } 2>/dev/null >|@FD@/../cwd/checkpoint

#: turn
for __ in 1 2 3 4 5 6 7 8 9; do if [[ /proc/$$/fd/$__ -ef @WAS_OUT@ ]]; then \builtin eval "exec $__>|@FD@/1";
  elif [[ /proc/$$/fd/$__ -ef @WAS_ERR@ ]]; then \builtin eval "exec $__>|@FD@/4"; fi; done;
\builtin printf '%s\n' '@REPORT@' >|@FD@/3; \builtin printf '%s\n' '@EVAL@' >|@FD@/5; \builtin printf -v __ %s ''; \builtin printf '\036@PREFIX@@TOKEN@ turned\n' >|@FD@/1

#: run
__='@TOKEN@ @CODE@ @TEXT@';\. @FD@/5<@STDIN@;{ __="$? $- @TOKEN@";\builtin trap>|@FD@/9;\builtin trap - ZERR DEBUG;\builtin printf '\036@PREFIX@@TOKEN@ end %s\n' "${__% *} 1$!">|@FD@/1&&\builtin printf '\036@PREFIX@@TOKEN@ end\n'>|@FD@/4||\. @FD@/3||\kill -SYS @PID@ "$$";
\builtin printf -v __ %s ''; PS1= PS2= RPS1= RPS2=;\builtin fc -P;\builtin set +axv +o promptsp +o promptcr -o histignorespace -o posixaliases;\builtin unset -f precmd preexec periodic;\builtin unset precmd_functions preexec_functions periodic_functions;} &>/dev/null||:;[[ -e /proc/self/fd/2 ]]||exec 2>/dev/null

# A line that has not come to its end was cut by SIGINT, which is 2 where zsh was in a command substitution.
#: again
{ case ${__-} in *\ @TOKEN@) \unset -f builtin;; *\ *)__="$? $- @TOKEN@";[[ $__ = 2\ * ]]&&__="130 ${__#2 }";\builtin trap>|@FD@/9;\builtin trap - ZERR DEBUG;; esac;\. @FD@/3||\enable . builtin eval;} &>/dev/null||:

#: recover
{ case ${__-} in *\ @TOKEN@);; *\ *)__="$? $- @TOKEN@";[[ $__ = 2\ * ]]&&__="130 ${__#2 }";;esac;\unset -f builtin;\. @FD@/3;} &>/dev/null||:

#: last
{ case ${__-} in *\ *) \unset -f builtin unset printf kill; \. @FD@/3; case $__ in *\ *) \kill -SYS @PID@ "$$";; esac;; esac; } >/dev/null 2>&1 || \kill -SYS @PID@ "$$"
