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
