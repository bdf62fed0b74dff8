#!/usr/bin/env bash
# Make sure that a Docker Engine answers.
#
#   scripts/engine.sh        use the engine that answers; else, as root on Debian or Ubuntu, install and start one
#   scripts/engine.sh stop   end the daemon that this script started, and no other
#
# SANDBOX_DOCKERD_ROOT=FOLDER keeps everything of the daemon in FOLDER and gives it a network namespace of its own. It
# is for trying this script next to a running engine, whose docker0 it would otherwise share (--bridge=none deletes it).
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

default_socket=/var/run/docker.sock
if [[ -n ${SANDBOX_DOCKERD_ROOT:-} ]]; then
    mkdir -p "$SANDBOX_DOCKERD_ROOT"
    cache=$SANDBOX_DOCKERD_ROOT
    default_socket=$cache/docker.sock
    export DOCKER_HOST=unix://$default_socket
    exec_root=$cache/exec
    pid_file=$cache/docker.pid
    dockerd=(unshare --net dockerd --data-root "$cache/data" --exec-root "$exec_root" --pidfile "$pid_file"
        --host "$DOCKER_HOST")
else
    exec_root=/var/run/docker
    pid_file=/var/run/docker.pid
    dockerd=(dockerd)
fi
log=$cache/dockerd.log
ours=$cache/dockerd.pid
socket_error=

# Does someone listen at this Unix socket? With a second argument: does a Docker Engine answer there?
listens() {
    socket_error=$(python3 - "$@" 2>&1 <<'PYTHON'
import socket
import sys

try:
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(5)
        stream.connect(sys.argv[1])
        if sys.argv[2:]:
            stream.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            if b" 200 " not in stream.recv(4096):
                sys.exit("what listens there is not a Docker Engine")
except OSError as error:
    sys.exit(error.strerror or "it accepts connections but does not answer")
PYTHON
    )
}

endpoint() {
    if [[ -n ${DOCKER_HOST:-} ]]; then
        printf '%s\n' "$DOCKER_HOST"
    else
        docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null || echo "unix://$default_socket"
    fi
}

answers() {
    case $endpoint in
    unix://*) listens "${endpoint#unix://}" engine ;;
    *) socket_error=$(docker version --format '{{.Server.Version}}' 2>&1 >/dev/null) ;;
    esac
}

first_word() { cut -d ' ' -f 1 "$1" 2>/dev/null || true; }

parent() { sed -n 's/^PPid:\t//p' "/proc/$1/status" 2>/dev/null || true; }

arguments() { tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline" || true; }

# Print the pids of the containerd and the shims that a killed daemon left behind. Each is told by its program and by
# the daemon's own path among its arguments; the Docker inside a container looks the same, but in another namespace.
# /var/run is a link to /run, and which of the two names a process got differs.
remains() {
    local pid name arguments folder=${exec_root#/var}/containerd
    for pid in /proc/[0-9]*; do
        pid=${pid#/proc/}
        name=$(readlink "/proc/$pid/exe") || continue
        [[ $(readlink "/proc/$pid/ns/mnt") == "$(readlink /proc/self/ns/mnt)" ]] || continue
        arguments=$(arguments "$pid")
        case "${name##*/} $arguments" in
        "containerd "*" --config $folder/containerd.toml "*) ;;
        "containerd "*" --config /var$folder/containerd.toml "*) ;;
        "containerd-shim"*" -address $folder/containerd.sock "*) ;;
        "containerd-shim"*" -address /var$folder/containerd.sock "*) ;;
        *) continue ;;
        esac
        if runs "$(parent "$pid")" dockerd; then
            fail "dockerd (pid $(parent "$pid")) runs but does not answer at $endpoint: look at its log, or end it"
        fi
        echo "$pid"
    done
}

# Bring a killed daemon's leftovers to the state that a new one can start from. A pid file whose number meanwhile is
# another process would stop dockerd, or make it take that process for its containerd and kill it.
clear_remains() {
    local pid pids containerd_pid=$exec_root/containerd/containerd.pid
    pids=$(remains) || exit 1
    for pid in $pids; do
        say "ending pid $pid, left behind by a killed daemon: $(arguments "$pid")"
        kill -KILL "$pid" 2>/dev/null || true
    done
    for pid in $pids; do
        while readlink "/proc/$pid/exe" >/dev/null; do sleep 0.05; done
    done
    if [[ -e $pid_file ]]; then
        say "removing $pid_file, left behind by a killed daemon"
        rm -f "$pid_file"
    fi
    rm -f "$containerd_pid"
    # dockerd uses the system's containerd if its socket exists, also if nobody listens there.
    local system=/run/containerd/containerd.sock
    if [[ -z ${SANDBOX_DOCKERD_ROOT:-} && -S $system ]] && ! listens $system; then
        say "removing $system, where nobody listens"
        rm -f $system
    fi
}

install_packages() {
    local packages=()
    has dockerd || packages+=(docker.io)
    has iptables || packages+=(iptables)
    has docker-init || has tini || packages+=(tini)
    [[ ${#packages[@]} -eq 0 ]] || apt_install "${packages[@]}"
    has docker || apt_install docker-cli # newer releases have the client in a package of its own
}

launch() {
    # A minimal machine whose init mounts nothing has no cgroups yet.
    grep -qE '^[^ ]+ [^ ]+ cgroup2? ' /proc/mounts || mount -t cgroup2 cgroup2 /sys/fs/cgroup
    say "starting dockerd (log: $log)"
    start_daemon_as "$ours" "$log" "${dockerd[@]}"
}

give_up() {
    [[ -s $log ]] && tail -n 15 "$log" >&2
    fail "$1 (the lines above, if any, are the end of $log)"
}

# Wait until the engine answers. Is false if the process PID ends before that.
wait_for() {
    local deadline=$((SECONDS + 90))
    say "waiting for $endpoint to answer"
    until answers; do
        readlink "/proc/$1/exe" >/dev/null || return 1
        ((SECONDS < deadline)) || give_up "the Docker Engine did not answer within 90 seconds ($socket_error)"
        sleep 0.2
    done
    say "the Docker Engine at $endpoint answers"
}

# Start the daemon that is installed, unless one is already on its way (or, just as well, on its way out).
start_daemon() {
    local pid
    pid=$(first_word "$pid_file")
    if runs "$pid" dockerd; then
        say "dockerd (pid $pid) runs but does not answer yet"
        wait_for "$pid" && return
    fi
    if [[ -d /run/systemd/system && -z ${SANDBOX_DOCKERD_ROOT:-} ]]; then
        say "starting docker.service"
        systemctl start docker || fail "docker.service does not start: see 'journalctl -u docker'"
        wait_for 1
    else
        clear_remains
        launch
        wait_for "$launched" || give_up "dockerd ended instead of answering"
    fi
}

start() {
    endpoint=$(endpoint)
    if answers; then
        say "the Docker Engine at $endpoint answers"
        return
    fi
    if [[ $endpoint != "unix://$default_socket" ]]; then
        fail "the Docker Engine at $endpoint does not answer ($socket_error): start it, or choose another one with" \
            "DOCKER_HOST or 'docker context use'"
    fi
    if ! debian_root; then
        fail "no Docker Engine answers at $endpoint ($socket_error): start Docker, for example Docker Desktop or" \
            "'sudo systemctl start docker', and try again"
    fi
    exec 9>"$cache/engine.lock"
    flock 9 # two runs at the same time start one daemon
    install_packages
    if answers; then # the package, or the run that had the lock, started it
        say "the Docker Engine at $endpoint answers"
    else
        start_daemon
    fi
}

case ${1:-start} in
start) start ;;
check)
    endpoint=$(endpoint)
    answers || { say "no Docker Engine answers at $endpoint; the demo goes on without" && exit 1; }
    ;;
stop) stop_daemon "$ours" dockerd ;; # it gives its containers 15 seconds
*) fail "usage: scripts/engine.sh [check|stop]" ;;
esac
