# Spoken by the control shell, a second shell of the same user: it finds and signals the processes of a cell. Builtins
# only: it must work when no process can be forked and when PATH is gone.

# stat FILE: read a /proc/PID/stat (a process name may hold spaces, parentheses and newlines) -> $pid $state $parent
# $session $tty $start
stat() {
  text=
  while IFS= read -r line || [ -n "$line" ]; do text="$text $line"; done 2>/dev/null <"$1"
  pid=${text#?} pid=${pid%% *}
  set -- ${text##*) }
  [ $# -ge 20 ] && state=$1 parent=$2 session=$4 tty=$5 start=${20}
}

# cell SHELL SUPERVISOR TICKS: the processes that the cell in SHELL has started -> $found
# A process is the cell's if it is newer than the cell (by start time; within the last second before it by its number,
# against the last number before the cell, which the shell leaves in fd 7 of SUPERVISOR) and does not descend from an
# older process, such as a background job of an earlier cell. TICKS: how long the cell has been running, in 10 ms; on a
# busy machine we hear of it late, and the cell seems to have begun later than its first processes.
cell() {
  shell=$1 mark=0
  [ -z "$narrow" ] || { tree; return; }
  IFS=' .' read -r seconds hundredths rest </proc/uptime
  begun=$((seconds * 100 + ${hundredths#0} - $3))
  read -r line 2>/dev/null <"/proc/$2/fd/7" && mark=${line##*[ /]}
  early=100
  case $mark in ''|*[!0-9]*|0) mark=0 early=2 ;; esac
  foreign=' 0 ' young=
  for file in /proc/[0-9]*/stat; do
    stat "$file" || continue
    case $pid in "$shell"|1) continue ;; esac
    line=
    [ "$parent" != 1 ] || IFS= read -r line 2>/dev/null <"/proc/$pid/cmdline"
    case $line in *sandbox-keeper*) foreign="$foreign$pid "; continue ;; esac  # starts other sessions and transfers
    if [ "$start" -gt $((begun + 2)) ] || { [ "$start" -ge $((begun - early)) ] && [ "$pid" -gt "$mark" ]; }
    then young="$young $pid:$parent"
    else foreign="$foreign$pid "; fi
  done
  found= left=$young grown=yes
  while [ -n "$grown" ]; do
    grown= found= young=$left left=
    for entry in $young; do
      case $foreign in
      *" ${entry#*:} "*) foreign="$foreign${entry%:*} " grown=yes ;;
      *) found="$found ${entry%:*}" left="$left $entry" ;;
      esac
    done
  done
}

# tree: the same where other sessions of the sandbox run their own cells: what descends from SHELL or is of its session,
# which holds also those whose parent has ended.
tree() {
  found=' ' grown=yes
  while [ -n "$grown" ]; do
    grown=
    for file in /proc/[0-9]*/stat; do
      stat "$file" || continue
      case "$found$shell " in *" $pid "*) continue ;; esac
      case "$found$shell " in
      *" $parent "*) ;;
      *) [ "$session" = "$shell" ] || continue ;;
      esac
      found="$found$pid " grown=yes
    done
  done
}

# end SUPERVISOR: SIGKILL to it and to all that descends from it. Nobody reads their streams any more: one that opens a
# fifo then would wait for ever.
end() {
  shell=$1
  tree
  kill -s KILL $1 $found 2>/dev/null
}

# spare: take out of $found the `script` of a cell on a terminal (see terminal.py): at a signal it would kill what runs
# on the terminal, sleep for 2 s, and hide the exit code. It ends with its child.
spare() {
  kept=
  for pid in $found; do
    line= name=
    IFS= read -r name 2>/dev/null <"/proc/$pid/comm"
    [ "$name" != script ] || IFS= read -r line 2>/dev/null <"/proc/$pid/cmdline"
    case $line in */.sandbox-tty-*) ;; *) kept="$kept $pid" ;; esac
  done
  found=$kept
}

# waits FEED SHELL SUPERVISOR TICKS: says yes if a process of the cell is blocked in a read of its stdin, and that is the
# pipe of FEED (see feed.py). The number of the call is that of x86-64 or arm64; where it is not told, what it sleeps in.
waits() {
  cell "$2" "$3" "$4"
  for pid in $2 $found; do
    [ "/proc/$pid/fd/0" -ef "/proc/$1/fd/3" ] || continue
    line= sleeps=
    IFS= read -r line 2>/dev/null <"/proc/$pid/syscall" || IFS= read -r sleeps 2>/dev/null <"/proc/$pid/wchan"
    case $line/$sleeps in
    '0 0x0 '*|'63 0x0 '*|/*pipe_read|/pipe_wait) echo yes; return ;;
    '7 0x'*' 0x1 0xffffffff'*|'73 0x'*' 0x1 0x0 '*)  # the `read` of busybox polls, one descriptor, for ever
      [ ! "/proc/$pid/exe" -ef "/proc/$2/exe" ] || { echo yes; return; } ;;
    esac
  done
}

# asks SHELL SUPERVISOR TICKS: says the settings of the terminal of the cell if one of its processes is blocked in a read
# of it, or waits for descriptor 0 alone, and that is the terminal. (Opened as /dev/tty it is seen as that.)
asks() {
  cell "$@"
  for pid in $found; do
    stat "/proc/$pid/stat" && [ "$tty" != 0 ] || continue
    place=/dev/pts/$(((tty & 255) | ((tty >> 12) & 0xfff00)))
    line= sleeps=
    IFS= read -r line 2>/dev/null <"/proc/$pid/syscall" || IFS= read -r sleeps 2>/dev/null <"/proc/$pid/wchan"
    set -- $line
    case $line/$sleeps in
    '0 '*|'63 '*) from=$(($2)) ;;
    '7 0x'*' 0x1 0xffffffff'*|'271 0x'*' 0x1 0x0 '*|'73 0x'*' 0x1 0x0 '*|'23 0x1 '*|'270 0x1 '*|'72 0x1 '*|/wait_woken|/n_tty_read) from=0 ;;
    *) continue ;;
    esac
    [ "/proc/$pid/fd/$from" -ef "$place" ] || [ "/proc/$pid/fd/$from" -ef /dev/tty ] || continue
    stty -a <"$place"
    echo yes
    return
  done
}

# drop FEED: end the helper of a feed.
drop() {
  line=
  IFS= read -r line 2>/dev/null <"/proc/$1/comm"
  [ "$line" != cat ] || kill -s KILL "$1" 2>/dev/null
}

# stop SIGNAL SHELL SUPERVISOR TICKS: signal the cell; prints how many processes it had beside the shell.
# The shell first: it must know of the interrupt before its child ends, else it goes on with the next line.
stop() {
  cell "$2" "$3" "$4"
  spare
  [ "$1" != INT ] || found="$2 $found" told=" $found "
  [ -z "$found" ] || { kill -s "$1" $found; kill -s CONT $found; } 2>/dev/null
  set -- $found
  echo $#
}

# heard PID: how many bytes a process has read so far
heard() {
  read -r line 2>/dev/null <"/proc/$1/io" && echo "${line#*: }"
}

# idle SHELL SUPERVISOR: says yes if the shell waits for the next line of ours: it sleeps in a read of its stdin, and that
# is the supervisor's. The number of the call is as in `waits`.
idle() {
  [ "/proc/$1/fd/0" -ef "/proc/$2/fd/0" ] || return 0
  line= sleeps=
  IFS= read -r line 2>/dev/null <"/proc/$1/syscall" || IFS= read -r sleeps 2>/dev/null <"/proc/$1/wchan"
  case $line/$sleeps in '0 0x0 '*|'63 0x0 '*|/*pipe_read|/pipe_wait) echo yes ;; esac
}

# nudge SHELL SUPERVISOR TICKS: SIGINT again to the shell, and to those of the cell's processes that have not had one.
# A shell that waits for a child goes on after SIGINT if the child does, so both must have it: in `while :; do sleep 1;
# done` the first one may have come between two children. A program that is cleaning up after its SIGINT is left alone.
nudge() {
  cell "$1" "$2" "$3"
  spare
  fresh=$1
  for pid in $found; do
    case $told in *" $pid "*) ;; *) fresh="$fresh $pid" told="$told$pid " ;; esac
  done
  kill -s INT $fresh 2>/dev/null
}

# finish SHELL SUPERVISOR TICKS: SIGKILL to the cell's processes; frozen first, so that a fork bomb cannot run away.
finish() {
  before=none
  while cell "$1" "$2" "$3"; [ "$found" != "$before" ]; do
    before=$found
    [ -z "$found" ] || kill -s STOP $found 2>/dev/null
  done
  [ -z "$found" ] || kill -s KILL $found 2>/dev/null
  set -- $found
  echo $#
}

# clear: SIGKILL to everything but process 1, the keeper and this shell.
clear() {
  before=none
  while
    found=
    for file in /proc/[0-9]*/stat; do
      stat "$file" || continue
      case $pid in 1|$$) continue ;; esac
      IFS= read -r line 2>/dev/null <"/proc/$pid/cmdline"
      case $line in *sandbox-keeper*) ;; *) found="$found $pid" ;; esac
    done
    [ "$found" != "$before" ]
  do
    before=$found
    [ -z "$found" ] || kill -s STOP $found 2>/dev/null
  done
  [ -z "$found" ] || kill -s KILL $found 2>/dev/null
}

# held SHELL CURRENT SUPERVISOR HOLDER...: says those of SUPERVISOR and the HOLDERs whose stdout or stderr is open in a
# process that is none of these, nor SHELL, nor process 1, nor one just started in its place. One whose files we may not
# see, such as one that has changed its user, is taken to hold what its parent does, or the stdout of CURRENT, the one
# where the cells before this question have printed. What holds none ($clean) cannot come to one, and is not asked again.
clean=' ' blind=' '
held() {
  shell=$1 current=$2 supervisor=$3 kids= found= still=' ' unseen=' '
  shift 2
  IFS= read -r kids 2>/dev/null <"/proc/$supervisor/task/$supervisor/children"
  for dir in /proc/[0-9]*; do
    case " 1 $shell $$ $* $kids " in *" ${dir#/proc/} "*) continue ;; esac
    case $clean in *" ${dir#/proc/} "*) still="$still${dir#/proc/} "; continue ;; esac
    line= some=
    IFS= read -r line 2>/dev/null <"$dir/cmdline"
    case $line in
    *sandbox-keeper*) ;;
    *) if [ -e "$dir/cwd" ] || [ ! -e "/proc/$$/cwd" ]; then holds "$@"; else unseen; fi ;;
    esac
    [ -n "$some" ] || still="$still${dir#/proc/} "
  done
  clean=$still blind=$unseen
  echo "$found"
}

# holds SUPERVISOR HOLDER...: those of them that the process of $dir holds -> $some and $found
holds() {
  for file in "$dir"/fd/*; do
    [ -p "$file" ] || continue
    error=4                          # of the supervisor; it comes first
    for holder; do
      if [ "$file" -ef "/proc/$holder/fd/1" ] || [ "$file" -ef "/proc/$holder/fd/$error" ]; then
        some=yes
        case " $found " in *" $holder "*) ;; *) found="$found $holder" ;; esac
      fi
      error=2
    done
  done
}

# unseen: the same for a process whose files we may not see
unseen() {
  stat "$dir/stat" 2>/dev/null && [ "$state" != Z ] || return
  [ "$parent" != 0 ] || return         # the engine just starts it, for us: a transfer, a session
  case $blind in
  *" $pid:"*) holder=${blind##* "$pid:"} ;;
  *) case $blind$unseen in
     *" $parent:"*) holder="$blind$unseen" holder=${holder##* "$parent:"} ;;
     *) holder=$current ;;
     esac ;;
  esac
  holder=${holder%% *} some=yes unseen="$unseen$pid:$holder "
  case " $found " in *" $holder "*) ;; *) found="$found $holder" ;; esac
}

# running SHELL PID...: how long the machine runs, and what has come from SHELL or has lost its parent, without the PIDs and
# what is ours: a line each, start, number, session. Those below them are not named.
running() {
  shell=$1
  IFS=' ' read -r seconds line </proc/uptime && echo "$seconds"
  for file in /proc/[0-9]*/stat; do
    stat "$file" && [ "$state" != Z ] || continue
    case " 1 $$ $* " in *" $pid "*) continue ;; esac
    case $parent in 1|"$shell") ;; *) continue ;; esac
    line=
    IFS= read -r line 2>/dev/null <"/proc/$pid/cmdline"
    case $line in *sandbox-keeper*) ;; *) echo "$start $pid $session" ;; esac
  done
}

# commands PID...: the command line of each, a line
commands() {
  for pid; do
    printf '%.300s\n' "$(tr '\000\n' '  ' <"/proc/$pid/cmdline" || cat "/proc/$pid/comm")"
  done 2>/dev/null
}
