#!/usr/bin/env bash
# Make sure that a Podman answers, with the images that the tests use (taken from the Docker Engine).
#
#   scripts/podman.sh        use the Podman that answers; else, as root on Debian or Ubuntu, install and start its service
#   scripts/podman.sh stop   end the service that this script started, and no other
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

log=$cache/podman.log
ours=$cache/podman.pid
if [[ $EUID -eq 0 ]]; then
    socket=/run/podman/podman.sock
else
    socket=${XDG_RUNTIME_DIR:-/run/user/$EUID}/podman/podman.sock
fi

# Ask the service, not the files: `podman` alone would need no service, and with CONTAINER_HOST it would ask another one.
remote() { podman --remote --url "${CONTAINER_HOST:-unix://$socket}" "$@"; }

answers() { remote version >/dev/null 2>&1; }

start() {
    if ! has podman || [[ $EUID -eq 0 && ! -x /usr/libexec/podman/catatonit ]] && debian_root; then
        apt_install podman catatonit
    fi
    has podman || fail "podman is missing: install it and try again"
    if answers; then
        say "Podman answers at ${CONTAINER_HOST:-$socket}"
        return
    fi
    [[ -z ${CONTAINER_HOST:-} ]] || fail "no Podman answers at CONTAINER_HOST=$CONTAINER_HOST"
    mkdir -p "$(dirname "$socket")"
    say "starting podman system service (log: $log)"
    cd "$cache" # where conmon leaves a file named `oom` when a container was out of memory
    # Podman keeps two monitors for each process that was started in a container, for 300 s after its end; the tests start
    # thousands. Ten seconds are enough to be asked for its exit code.
    printf '[engine]\nexit_command_delay = 10\n' >"$cache/containers.conf"
    CONTAINERS_CONF=$cache/containers.conf \
        start_daemon_as "$ours" "$log" podman system service --time=0 "unix://$socket"
    cd "$repo"
    local deadline=$((SECONDS + 60))
    until answers; do
        if ! readlink "/proc/$launched/exe" >/dev/null || ((SECONDS >= deadline)); then
            tail -n 15 "$log" >&2
            fail "podman system service does not answer (the lines above are the end of $log)"
        fi
        sleep 0.2
    done
}

# In Docker's language, which our engine speaks too: a short name means there what it means in Docker. `podman load` calls
# it localhost/NAME instead.
compat() { docker --host "${CONTAINER_HOST:-unix://$socket}" "$@" >/dev/null 2>&1; }

load() {
    local image
    for image in debian:stable-slim busybox:latest; do
        if compat image inspect "$image"; then
            say "$image is there"
        else
            say "loading $image from the Docker Engine"
            docker save "$image" | remote load --quiet >/dev/null || fail "podman does not load $image"
            compat tag "localhost/$image" "$image" || compat image inspect "$image" || fail "podman does not tag $image"
        fi
    done
}

case ${1:-start} in
start)
    start
    load
    ;;
stop) stop_daemon "$ours" podman ;;
*) fail "usage: scripts/podman.sh [stop]" ;;
esac
