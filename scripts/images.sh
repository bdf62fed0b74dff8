#!/usr/bin/env bash
# Make sure that the engine has the images that the tests and the demo use: debian:stable-slim and busybox:latest.
#
# An image that is there is used. Else root on Debian or Ubuntu builds it from packages, so that no image registry is
# needed (.cache/ keeps the Debian root for the next engine); everybody else pulls it.
#
# `scripts/images.sh root` only builds .cache/debian-root.tar, without an engine.
#
# SANDBOX_IMAGE_SUFFIX=TEXT is appended to both tags. It is for trying this script without touching the real images.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

debian=debian:stable-slim${SANDBOX_IMAGE_SUFFIX:-}
busybox=busybox:latest${SANDBOX_IMAGE_SUFFIX:-}
path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

pull() {
    say "pulling $1"
    docker pull --quiet "$1" >/dev/null || fail "cannot pull $1: check the network, or 'docker pull $1' by hand"
}

# Import the tar archive on stdin as IMAGE with the default command SHELL.
import() {
    docker import -c "ENV PATH=$path" -c "CMD [\"$2\"]" - "$1" >/dev/null || fail "the engine does not import $1"
}

root=$cache/debian-root.tar

build_root() {
    if [[ ! -f $root ]]; then
        if ! has mmdebstrap || [[ ! -e /usr/share/keyrings/debian-archive-keyring.gpg ]]; then
            apt_install mmdebstrap debian-archive-keyring
        fi
        say "building $debian from Debian's packages (about half a minute)"
        # Like the public image: no documentation, no manual pages, no translations.
        if ! mmdebstrap --quiet --format=tar --variant=minbase --dpkgopt='path-exclude=/usr/share/man/*' \
            --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
            --dpkgopt='path-include=/usr/share/doc/*/copyright' bookworm "$root.partial" 2>"$work/log" </dev/null; then
            tail -n 15 "$work/log" >&2
            rm -f "$root.partial"
            fail "mmdebstrap could not build a Debian root (the lines above are its own)"
        fi
        mv "$root.partial" "$root"
    fi
}

build_debian() {
    build_root
    say "importing $debian"
    import "$debian" bash <"$root"
}

build_busybox() {
    dpkg-query --show --showformat='${db:Status-Status}' busybox-static 2>/dev/null | grep -qx installed ||
        apt_install busybox-static
    say "importing $busybox"
    local root=$work/busybox applet
    mkdir -p "$root"/{bin,etc,root,tmp}
    chmod 755 "$root"
    chmod 700 "$root/root"
    chmod 1777 "$root/tmp"
    cp -L "$(command -v busybox)" "$root/bin/busybox"
    for applet in $(busybox --list); do
        [[ $applet == busybox ]] || ln -s busybox "$root/bin/$applet"
    done
    printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'nobody:x:65534:65534:nobody:/nonexistent:/bin/false' \
        >"$root/etc/passwd"
    printf '%s\n' 'root:x:0:' 'nogroup:x:65534:' >"$root/etc/group"
    tar --create --directory "$root" --owner=0 --group=0 --numeric-owner . | import "$busybox" sh
}

# provide IMAGE FUNCTION: use, build or pull it.
provide() {
    if docker image inspect "$1" >/dev/null 2>&1; then
        say "$1 is there"
    elif debian_root; then
        "$2"
    else
        pull "$1"
    fi
}

if [[ ${1:-} == root ]]; then
    build_root
    exit
fi
has docker || ! debian_root || apt_install docker.io
has docker || fail "the docker command is missing: install Docker's client and try again"
provide "$debian" build_debian
provide "$busybox" build_busybox
