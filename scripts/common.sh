# shellcheck shell=bash
# Sourced by the other scripts: where things are, what is said, and how Debian and Ubuntu get packages.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=$repo/.cache
export PATH="$PATH:/usr/sbin:/sbin" # where dockerd and iptables are, also when root came by `su`
mkdir -p "$cache"

say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*"; }

fail() {
    printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2
    exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

debian_root() { [[ $EUID -eq 0 ]] && has apt-get; }

# Install Debian packages. The package lists are fetched only if what is there does not do.
apt_install() {
    debian_root || fail "$* is missing: install it, or run this as root on Debian or Ubuntu"
    say "installing $*"
    local log=$cache/apt.log
    local get=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
    "${get[@]}" install -y --no-install-recommends "$@" >"$log" 2>&1 </dev/null && return
    # One unreachable extra source must not matter: whether the lists are good enough shows in the next step.
    "${get[@]}" update >>"$log" 2>&1 </dev/null || true
    if ! "${get[@]}" install -y --no-install-recommends "$@" >>"$log" 2>&1 </dev/null; then
        tail -n 15 "$log" >&2
        fail "apt-get could not install $* (the lines above are from $log)"
    fi
}

# Is the process PID alive and running the program NAME? A zombie has no program any more. (After an upgrade the
# program's file is "(deleted)".)
runs() {
    local program
    [[ $1 =~ ^[0-9]+$ ]] && program=$(readlink "/proc/$1/exe") && [[ ${program% (deleted)} == */$2 ]]
}

start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }

# start_daemon_as FILE LOG COMMAND...: start a daemon, note it in FILE as "PID START-TIME" (a number alone could meanwhile
# be another process) and leave its pid in `launched`.
start_daemon_as() {
    local file=$1 log=$2
    shift 2
    (
        # Whoever reads our pipes must not wait for the daemon; nor may it hold our lock or make's job tokens.
        for fd in "/proc/$BASHPID/fd/"*; do
            fd=${fd##*/}
            [[ $fd -le 2 ]] || eval "exec $fd>&-"
        done
        exec setsid "$@" </dev/null >"$log" 2>&1
    ) &
    launched=$!
    echo "$launched $(start_time "$launched")" >"$file"
}

# stop_daemon FILE PROGRAM: end the daemon that FILE names, and no other.
stop_daemon() {
    local pid='' started='' deadline=$((SECONDS + 60))
    [[ -f $1 ]] && read -r pid started <"$1"
    if ! runs "$pid" "$2" || [[ $(start_time "$pid") != "$started" ]]; then
        rm -f "$1"
        say "no daemon that this script started is running"
        return
    fi
    say "ending $2 (pid $pid)"
    kill -TERM "$pid"
    while runs "$pid" "$2"; do
        ((SECONDS < deadline)) || fail "$2 (pid $pid) did not end within 60 seconds"
        sleep 0.1
    done
    rm -f "$1"
}
