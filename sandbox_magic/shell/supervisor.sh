# The parent of the session's shell: sh -c THIS supervisor NAME SHELL then report, eval and code of bash, zsh, others
#
# It owns the two output streams, starts the shell on the same stdin, and says at once when the shell has ended, even
# when a background process keeps the streams open. It does nothing while a cell runs. The shell reaches the streams
# and the helper files through /proc/PID/fd of this process, so a cell may close every descriptor, delete every file.
#
#   fd 1  stdout of the cells        fd 4  stderr of the cells
#   fd 3  reports after a cell       fd 5  evaluates $__              fd 6  sets $? to the number at its head
#   fd 7  what a new shell needs     fd 8  stdin of the next cell     fd 9  the DEBUG trap between cells (bash)
name=$1 wish=$2
IFS= read -r prefix || exit         # random; not in argv, where a cell could print it
token=${prefix}00000000
exec 4>&2 2>/dev/null
trap 'lost=yes' SYS                 # from a shell that cannot report, and ends itself so: the cell's exit code is unknown
trap : INT QUIT TERM HUP            # a handler, not '': what is ignored here would be ignored in the shell too

[ -n "$wish" ] || { command -v bash >/dev/null && wish=bash || wish=sh; }
command -v "$wish" >/dev/null || { printf '\036%s absent\n' "$token"; exit 1; }
case ${wish##*/} in
bash)
  report=$3 eval=$4 code=$5
  set -- "$wish" --norc --noprofile --noediting -i ;;
zsh)
  report=$6 eval=$7 code=$8
  set -- "$wish" -f +Z -i ;;
*)
  shift 8
  report=$1 eval=$2 code=$3
  # Interactive for the same reason as bash (see bash.sh); busybox not: its applets would read what it has read ahead.
  case ${wish##*/}:$(readlink /proc/$$/exe) in
  *busybox*|ash:*) set -- "$wish" ;;
  *) set -- "$wish" -i ;;
  esac ;;
esac
command -v setsid >/dev/null && set -- setsid "$@"     # kill 0 in a cell spares this process

filled() {                          # print $1 with the placeholders filled in
  text=$1
  while :; do
    case $text in
    *@FD@*) text=${text%%@FD@*}/proc/$$/fd${text#*@FD@} ;;
    *@PID@*) text=${text%%@PID@*}$$${text#*@PID@} ;;
    *@PREFIX@*) text=${text%%@PREFIX@*}$prefix${text#*@PREFIX@} ;;
    *) printf '%s\n' "$text"; return ;;
    esac
  done
}

dir=
for place in /dev/shm /tmp /var/tmp /run "$HOME" "$PWD"; do
  dir=$place/.sandbox-$name own=$place/.sandbox-$name/$$.  # there may be another supervisor of this name, not yet ended
  # `command`: where a redirection of `:` fails, dash would end.
  mkdir -p -m 700 "$dir" && command : >>"$dir/state" && command : >"${own}in" && command : >"${own}trap" &&
    filled "$report" >"${own}report" && filled "$eval" >"${own}eval" && filled "$code" >"${own}code" && break
  dir=
done
[ -n "$dir" ] || { printf '\036%s nowhere\n' "$token"; exit 1; }
exec 3<"${own}report" 5<"${own}eval" 6<"${own}code" 7<"$dir/state" 8<"${own}in" 9<"${own}trap"
rm -f "$own"* &                     # the state stays: it outlives this process too

trap 'exit 159' PIPE                # nobody reads any more: whatever this says is not the shell's exit code. The folder
                                    # stays: the next supervisor of this name may already stand in it.

here=$PWD                           # this process stands in the folder, so that the shell finds its checkpoint
cd "$dir" || exit

printf '\036%s ready %s %s\n' "$token" "$$" "$wish"
while :; do
  lost=
  (cd "$here"; unset OLDPWD; exec "$@" >/dev/null 3<&- 4>&- 5<&- 6<&- 7<&- 8<&- 9<&-)  # in a child: dash would move its own descriptors
                                              # for a plain command. Its greeting goes to /dev/null.
  code=$?
  [ -z "$lost" ] || code=
  read -r _ out err <"/proc/$$/fd/3"            # where the shell has printed: behind that, or else here
  # <>: where nobody reads any more, a pipe that is opened only to write would make this wait for ever.
  { printf '\036%s dead %s\n' "$token" "$code" 1<>"$out" && printf '\036%s dead\n' "$token" 1<>"$err"; } || {
    printf '\036%s dead %s\n' "$token" "$code"
    printf '\036%s dead\n' "$token" >&4
  }
  while :; do                       # drop what was meant for the dead shell
    IFS= read -r line || exit 159
    [ "$line" = "start $token" ] && break
  done
done
