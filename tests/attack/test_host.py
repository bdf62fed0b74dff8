"""Out of the sandbox by way of the kernel: what CDK, deepce and the histories of container engines list."""

from __future__ import annotations

import os
from pathlib import Path

from tries import ABSENT, DENIED, Try, Where, call, each, perl

from sandbox_magic import Sandbox

NEW_USER, NEW_MOUNTS, NEW_NETWORK, NEW_PROCESSES = 0x10000000, 0x20000, 0x40000000, 0x20000000
DISK = Path("/").stat().st_dev

# Profile `open` keeps the engine's own filter of system calls, and Podman's lets a process make namespaces of its own.
NAMESPACES = frozenset({"podman-open"})
CHROOT = frozenset({"docker-open", "podman-open"})  # may do it; it leads nowhere without more
# Root inside with CAP_KILL may end its own sandbox.
KILL = frozenset({"docker-open", "podman-open"})

MOUNTS = [
    Try("mounts", "mount a proc", call("mount", '"x"', '"/tmp"', '"proc"', 0, 0)),
    Try("mounts", "mount a tmpfs", call("mount", '"x"', '"/tmp"', '"tmpfs"', 0, 0)),
    Try("mounts", "mount a sysfs", call("mount", '"x"', '"/tmp"', '"sysfs"', 0, 0)),
    Try("mounts", "mount the control groups (CDK mount-cgroup)",
        call("mount", '"x"', '"/tmp"', '"cgroup"', 0, '"rdma"')),
    Try("mounts", "mount the host's disk (CDK mount-disk)",
        f"mknod /tmp/disk b {os.major(DISK)} {os.minor(DISK)}; " +
        call("mount", '"/tmp/disk"', '"/tmp"', '"ext4"', 0, 0)),
    Try("mounts", "mount debugfs", call("mount", '"x"', '"/tmp"', '"debugfs"', 0, 0)),
    Try("mounts", "mount binfmt_misc", call("mount", '"x"', '"/tmp"', '"binfmt_misc"', 0, 0)),
    Try("mounts", "mount an overlay", call("mount", '"x"', '"/tmp"', '"overlay"', 0, '"lowerdir=/usr:/etc"')),
    Try("mounts", "bind a folder elsewhere", call("mount", '"/proc"', '"/tmp"', '""', 4096, 0)),
    Try("mounts", "make the root writable again", call("mount", '"x"', '"/"', '""', 32, 0)),
    Try("mounts", "make /proc/sys writable again", call("mount", '"x"', '"/proc/sys"', '""', 4096 | 32, 0)),
    Try("mounts", "make /sys writable again", call("mount", '"x"', '"/sys"', '""', 4096 | 32, 0), f"{DENIED}|{ABSENT}"),
    Try("mounts", "share mounts with the host", call("mount", '"x"', '"/"', '""', 1 << 20, 0)),
    Try("mounts", "take the mask off /proc/kcore", call("umount2", '"/proc/kcore"', 2), f"{DENIED}|{ABSENT}"),
    Try("mounts", "take /proc away", call("umount2", '"/proc"', 2)),
    Try("mounts", "take /dev away", call("umount2", '"/dev"', 2)),
    Try("mounts", "another root, by pivot_root", call("pivot_root", '"/tmp"', '"/tmp"')),
    Try("mounts", "another root, by chroot", call("chroot", '"/tmp"'), without=CHROOT),
    Try("mounts", "a copy of the mounts, by open_tree", call("open_tree", -100, '"/"', 1)),
    Try("mounts", "a file system, by fsopen", call("fsopen", '"tmpfs"', 0)),
    Try("mounts", "pick a file system, by fspick", call("fspick", -100, '"/"', 0)),
    Try("mounts", "move a mount, by move_mount", call("move_mount", -100, '"/proc"', -100, '"/tmp"', 0)),
    Try("mounts", "change a mount, by mount_setattr",
        call("mount_setattr", -100, '"/"', 0, "$attributes", 32, before='$attributes = pack("Q4", 0, 1, 0, 0)')),
    Try("mounts", "a file by its inode, as shocker did (CDK cap-dac-read-search)",
        call("open_by_handle_at", "fileno($f)", "$handle", 0,
             before='$handle = pack("IiQ", 8, 1, 2); open $f, "<", "/etc/hosts" or die $!')),
]  # fmt: skip
SPACES = [
    Try("namespaces", "a new user namespace, by unshare", call("unshare", NEW_USER), without=NAMESPACES),
    Try("namespaces", "a new user namespace, by clone",
        call("clone", NEW_USER | 17, 0, 0, 0, 0), without=NAMESPACES),
    Try("namespaces", "a new user namespace, by clone3",
        call("clone3", "$arguments", 64, before=f'$arguments = pack("Q8", {NEW_USER}, 0, 0, 0, 17, 0, 0, 0)'),
        without=NAMESPACES),
    Try("namespaces", "a user namespace, then the control groups (CVE-2022-0492)",
        "unshare -UrmC sh -c 'for name in memory pids rdma; do mount -t cgroup -o $name cgroup /tmp && "
        ": >>/tmp/release_agent && exit; done; false'", f"{DENIED}|wrong fs type"),
    Try("namespaces", "a new mount namespace", call("unshare", NEW_MOUNTS)),
    Try("namespaces", "a new network namespace", call("unshare", NEW_NETWORK)),
    Try("namespaces", "a new PID namespace", call("unshare", NEW_PROCESSES)),
    *(Try("namespaces", f"enter the {kind} namespace of process 1",
          call("setns", "fileno($f)", 0, before=f'open $f, "<", "/proc/1/ns/{kind}" or die $!'))
      for kind in ("mnt", "net", "pid", "user", "cgroup")),
    Try("namespaces", "nsenter into process 1", "nsenter -t 1 -m -n -p true"),
]  # fmt: skip
MACHINE = [
    Try("the machine", "load a module, by init_module", call("init_module", '""', 0, '""')),
    Try("the machine", "load a module, by finit_module",
        call("finit_module", "fileno($f)", '""', 0, before='open $f, "<", "/etc/hosts" or die $!')),
    Try("the machine", "unload a module", call("delete_module", '"none"', 0x800)),
    Try("the machine", "start another kernel, by kexec_load", call("kexec_load", 0, 0, 0, 0)),
    Try("the machine", "start another kernel, by kexec_file_load", call("kexec_file_load", -1, -1, 0, '""', 4)),
    Try("the machine", "reboot", call("reboot", 0xFEE1DEAD, 672274793, 0, 0)),  # at worst Ctrl+Alt+Del is ignored
    Try("the machine", "set the clock", call("settimeofday", 0, 0)),
    Try("the machine", "set the host's name", call("sethostname", '"x"', 1)),
    Try("the machine", "set the domain's name", call("setdomainname", '"x"', 1)),
    Try("the machine", "use a swap file", call("swapon", '"/tmp/none"', 0)),
    Try("the machine", "stop swapping", call("swapoff", '"/tmp/none"')),
    Try("the machine", "process accounting", call("acct", 0)),
    Try("the machine", "ports of the hardware, by iopl", call("iopl", 3)),
    Try("the machine", "ports of the hardware, by ioperm", call("ioperm", 0, 1, 1)),
    Try("the machine", "the kernel's log, by syslog", call("syslog", 3, "$buffer", 64, before='$buffer = "\\0" x 64')),
    Try("the machine", "the kernel's log, by /dev/kmsg", "head -c 1 /dev/kmsg", f"{DENIED}|{ABSENT}"),
    Try("the machine", "watch all files, by fanotify", call("fanotify_init", 0, 0)),
    Try("the machine", "disk quotas", call("quotactl", "0x800002 << 8", 0, 0, 0)),
    Try("the machine", "hang up terminals", call("vhangup")),
]  # fmt: skip
DEVICES = [
    *(Try("devices", f"make and read {what}", f"mknod /tmp/device-$$ {kind} && head -c 1 </tmp/device-$$")
      for what, kind in (("the host's disk", f"b {os.major(DISK)} {os.minor(DISK)}"), ("/dev/mem", "c 1 1"),
                         ("/dev/kmsg", "c 1 11"), ("/dev/port", "c 1 4"), ("a loop device", "b 7 0"))),
    *(Try("devices", f"open /dev/{name}", f": </dev/{name}", f"{DENIED}|{ABSENT}")
      for name in ("mem", "kmem", "port", "fuse", "kvm", "net/tun", "loop-control", "loop0", "snapshot", "nvram",
                   "mapper/control", "vhost-net", "vhost-vsock", "vsock", "uinput", "input/event0", "dri/card0",
                   "cpu/0/msr", "raw/rawctl", "btrfs-control", "userfaultfd", "autofs")),
    Try("devices", "open a block device of the host",
        "for name in $(sed -n 's/.* //p' /proc/partitions); do head -c 1 /dev/$name && exit; done; "
        "echo No such >&2; false",
        ABSENT),
    Try("devices", "allow all devices (CDK rewrite-cgroup-devices)",
        "cd /sys/fs/cgroup/devices && echo a >devices.allow", f"{DENIED}|{ABSENT}"),
]  # fmt: skip


def _open(path: str) -> str:
    """Return code that opens files for writing and writes nothing, which would already be enough."""
    return f'for f in {path}; do if [ -e "$f" ]; then (: >>"$f") && exit; fi; done; echo nonexistent >&2; false'


_NOT_HERE = f"{DENIED}|{ABSENT}|nonexistent"
FILES = [
    *(Try("kernel files", f"write {path}", _open(path), _NOT_HERE)
      for path in (
          "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hotplug",
          "/proc/sys/kernel/sysrq", "/proc/sys/kernel/randomize_va_space",
          "/proc/sys/vm/overcommit_memory", "/proc/sys/vm/panic_on_oom", "/proc/sys/vm/drop_caches",
          "/proc/sys/fs/file-max", "/proc/sys/fs/binfmt_misc/register", "/proc/sys/net/ipv4/ip_forward",
          "/proc/sysrq-trigger", "/proc/mtrr", "/proc/irq/default_smp_affinity", "/proc/kcore",
          "/sys/kernel/uevent_helper", "/sys/kernel/kexec_crash_size", "/sys/kernel/mm/ksm/run", "/sys/power/state",
          "/sys/kernel/debug/tracing/trace", "/sys/kernel/security/apparmor/.load", "/sys/class/net/lo/ifalias",
          "/sys/fs/cgroup/*/release_agent", "/sys/fs/cgroup/*/notify_on_release", "/sys/fs/cgroup/*/cgroup.procs",
          "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/pids/pids.max", "/sys/fs/cgroup/cpu.max")),
    Try("kernel files", "make a control group of its own",
        "for f in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $f/own && [ -e $f/own/cgroup.procs ] && exit; "
        "done; echo nonexistent >&2; false", _NOT_HERE),
    *(Try("kernel files", f"read {path}", f'[ -n "$(head -c 9 {path} | tr -d "\\000")" ]', "")
      for path in ("/proc/kcore", "/proc/kpagecount", "/proc/kpageflags", "/proc/kmsg", "/proc/timer_list",
                   "/proc/sched_debug")),
    *(Try("kernel files", f"look into {path}", f'[ -n "$(ls -A {path})" ]', "")
      for path in ("/sys/firmware", "/sys/kernel/debug", "/sys/kernel/tracing", "/sys/kernel/security", "/proc/scsi",
                   "/sys/fs/pstore", "/sys/firmware/efi/efivars", "/sys/fs/bpf")),
]  # fmt: skip

# The keeper holds the sandbox's life; in a bubblewrap sandbox it is process 1, elsewhere it has a user of its own.
KEEPER = '$k = 1; for (</proc/[0-9]*/status>) { open $s, "<", $_ or next; local $/; $t = <$s>; '
KEEPER += "$k = $1 + 0 if $t =~ /^Pid:\\t(\\d+).*^Uid:\\t64711\\t/ms }"
PROCESSES = [
    Try("processes", "trace the keeper (CDK check-ptrace)", call("ptrace", 16, "$k", 0, 0, before=KEEPER)),
    Try("processes", "read the keeper's memory", perl(f'{KEEPER}; open $f, "<", "/proc/$k/mem" or die $!')),
    Try("processes", "write the keeper's memory", perl(f'{KEEPER}; open $f, "+<", "/proc/$k/mem" or die $!')),
    Try("processes", "read the keeper's open files", perl(f'{KEEPER}; readlink "/proc/$k/fd/0" or die $!')),
    Try("processes", "read memory with process_vm_readv",
        call("process_vm_readv", "$k", "$to", 1, "$from", 1, 0,
             before=f'{KEEPER}; $b = "x" x 8; $to = pack("QQ", unpack("Q", pack("P", $b)), 8); '
                    '$from = pack("QQ", 4096, 8)')),
    Try("processes", "kill the keeper, as the user that one is",
        perl(f"{KEEPER}; kill(9, $k) and $k != 1 or die $k == 1 ? $! || denied : $!"), without=KILL),
    Try("processes", "stop the keeper, as the user that one is",
        perl(f"{KEEPER}; kill(19, $k) and $k != 1 or die $k == 1 ? $! || denied : $!"), without=KILL),
    Try("processes", "become root again by a set-user-id program",
        "cp $(command -v id) /tmp/root-id && chmod 4755 /tmp/root-id && [ -u /tmp/root-id ] && "
        "as=$(setpriv --reuid=1000 --regid=1000 --clear-groups /tmp/root-id -u) && echo as $as && [ $as = 0 ]",
        "as 1000", without=frozenset({"sealed", "bubblewrap"})),  # where nobody is root
    Try("processes", "signal a process of the host",
        f'[ -e /proc/{os.getpid()} ] || kill -0 {os.getpid()}', ABSENT),
    Try("processes", "type into a terminal (TIOCSTI)",
        perl("$c = chr 10; ioctl(STDIN, 0x5412, $c) or die $!"), f"{DENIED}|ioctl"),
    Try("processes", "open the terminal of whoever started it", ": </dev/tty", f"{DENIED}|{ABSENT}"),
    Try("processes", "raise the limit of open files", "ulimit -n 1000000", DENIED),
    Try("processes", "write core files", "ulimit -c unlimited", DENIED),
    Try("processes", "run before all others", perl("setpriority(0, 0, -20) or die $!")),
    Try("processes", "run in real time", call("sched_setscheduler", 0, 1, "$p", before='$p = pack("i", 50)')),
    Try("processes", "be spared when memory is short", "echo -1000 >/proc/self/oom_score_adj", DENIED),
    Try("processes", "lock memory", call("mlockall", 3), f"{DENIED}|Cannot allocate"),
]  # fmt: skip


@each([*MOUNTS, *SPACES, *MACHINE, *DEVICES, *FILES, *PROCESSES])
def test_it_is_refused(inside: Sandbox, where: Where, attempt: Try) -> None:
    attempt.run(inside)
