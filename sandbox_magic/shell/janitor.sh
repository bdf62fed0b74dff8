# Outlives the process that started it by a moment: sh janitor.sh PYTHON SWEEP. On stdin, a line each: a path, which is
# removed when stdin ends; `+ENGINE=ADDRESS`, a container is made there; `-`, one of those is gone. If some are not, the
# SWEEP looks for them. A control group can be removed once its last process is gone.
python=$1 sweep=$2 made=0 engines=
shift 2

# strays NAME: end the bubblewraps that were being started for the sandbox of this name; see engines/traces.py
strays() {
  for file in /proc/[0-9]*/cmdline; do
    line=
    IFS= read -r line 2>/dev/null <"$file"
    case $line in *"$1"*) ;; *) continue ;; esac
    case $(readlink "${file%/*}/exe") in */bwrap) pid=${file#/proc/} && kill -s KILL "${pid%/*}" ;; esac
  done
}

while IFS= read -r line; do
  case $line in
  +*) made=$((made + 1)); case " $engines " in *" ${line#+} "*) ;; *) engines="$engines ${line#+}" ;; esac ;;
  -) made=$((made - 1)) ;;
  *) set -- "$@" "$line" ;;
  esac
done
tries=0
while [ $# -gt 0 ] && [ $((tries += 1)) -lt 100 ]; do
  round=$#
  while [ $round -gt 0 ]; do
    path=$1 round=$((round - 1))
    shift
    case $path in
    /sys/fs/cgroup/*) rmdir "$path" 2>/dev/null ;;
    *)
      [ ! -e "$path" ] || strays "${path##*/}" 2>/dev/null
      chmod u+rwx "$path/d" 2>/dev/null  # the pipes: only root can list the folder as it is
      rm -rf "$path"
      ;;
    esac
    [ ! -e "$path" ] || set -- "$@" "$path"
  done
  [ $# -eq 0 ] || sleep 0.05
done
[ "$made" -gt 0 ] && [ -n "$python" ] || exit 0
set -f
sleep 2                              # most end by themselves, and at once
for each in $engines; do
  "$python" -P -c "$sweep" "$each"
done
