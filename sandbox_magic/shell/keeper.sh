# Process 1 of a bubblewrap sandbox: sh keeper.sh [PIDS]; requests on stdin, reports on stdout. It ends with its stdin.
#
# A request is the name of three fifos and a script in /.sandbox/d. `serve` starts each as a grandchild, so that it is an
# orphan of process 1, which does nothing but wait: so it reaps whatever dies in here. No signal from inside reaches
# process 1, which has no handlers. `serve` can be killed by a cell; then there is a new one.
ulimit -c 0
ulimit -n 4096
ulimit -S -n 1024
[ -z "$1" ] || ulimit -u "$1" 2>/dev/null || ulimit -p "$1" 2>/dev/null || exit 70

begin() {
  ( (
    cd /.sandbox/d || exit
    exec 3>&1 <"$name.in" >"$name.out" 2>"$name.err" || exit
    . "./$name.sh" || exit           # sets the arguments and the folder
    echo "$name open" >&3
    cd -- "$folder" 2>/dev/null || cd /
    (exec 3>&-; exec env --default-signal=INT --default-signal=QUIT -i "$@")
    echo "$name $?" >&3
  ) & )
}

serve() {
  while IFS= read -r name; do
    command eval begin               # `command eval`: else dash ends where no process can be made; we are asked again
  done
  exit 0
}

exec 4<&0                            # sh gives a background job /dev/null
echo sandbox ready
while :; do
  serve <&4 4<&- &
  wait $!
  [ $? -ne 0 ] || exit
done
