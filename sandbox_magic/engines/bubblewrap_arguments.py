"""What bubblewrap is told: pure functions from the wish and the host's layout to its arguments.

The root is a fresh small tmpfs that is read-only once it is set up. Programs are the host's, read-only; /etc is made
anew. All that can be written to is bounded: /tmp, /run, /dev/shm and /work.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sandbox_magic.errors import InvalidOptions
from sandbox_magic.spec import Folder, SandboxSpec

INSIDE = 10001  # user and group id of everything inside
HOME = "/work"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PIPES = "/.sandbox/d"
SHELL = "/.sandbox/sh"
KEEPER = "/.sandbox/sandbox-keeper"
# The host's /etc stays outside but for what programs of /usr need to run at all: small files are copied, for each mount
# costs a third of a millisecond.
ETC_COPIED = ("ld.so.cache", "localtime", "mime.types", "os-release", "protocols", "services", "ssl/openssl.cnf")
_ETC_SHOWN = (
    "/etc/alternatives",
    "/etc/fonts",
    "/etc/java-11-openjdk",
    "/etc/java-17-openjdk",
    "/etc/java-21-openjdk",
    "/etc/pki/tls/certs",
    "/etc/ssl/certs",
)
_TOP = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
# What a mount inside must not hide.
_OURS = ("/", "/usr", "/etc", "/proc", "/dev", "/.sandbox", "/tmp", "/run", "/work", *(f"/{name}" for name in _TOP))  # noqa: S108
_MEMORY = 1 << 20


@dataclass(frozen=True, slots=True)
class Given:
    """What the engine has prepared.

    Attributes:
        bwrap: The program.
        no_userns: Whether it can forbid new user namespaces.
        pipes: The folder with the pipes of this sandbox.
        shell: A descriptor of the shell that becomes process 1.
        keeper: A descriptor of the script that this shell runs.
        etc: A descriptor for each file of /etc that is made anew or copied, by name.
        seccomp: A descriptor of the filter of system calls; `None` where we have none for this machine.
        info: A descriptor on which bubblewrap tells its child's process id.
        block: A descriptor that it reads before the keeper begins.
        pids: What the keeper shall limit by itself; empty where the kernel does.
    """

    bwrap: str
    no_userns: bool
    pipes: str
    shell: int
    keeper: int
    etc: dict[str, int]
    seccomp: int | None
    info: int
    block: int
    pids: str = ""

    def descriptors(self) -> list[int]:
        """Return those that bubblewrap must inherit."""
        fds = [self.shell, self.keeper, self.seccomp, self.info, self.block, *self.etc.values()]
        return [fd for fd in fds if fd is not None]


def etc_files() -> dict[str, str]:
    """Return the files of /etc that are made anew: no user, no name and no address of the host."""
    return {
        "passwd": f"root:x:0:0:root:/root:/bin/sh\nsandbox:x:{INSIDE}:{INSIDE}:sandbox:{HOME}:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        "group": f"root:x:0:\nsandbox:x:{INSIDE}:\nnogroup:x:65534:\n",
        "hosts": "127.0.0.1\tlocalhost sandbox\n::1\tlocalhost\n",
        "hostname": "sandbox\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    }


def arguments(spec: SandboxSpec, given: Given) -> list[str]:
    """Return the command that becomes the sandbox. No I/O but looking at how the host's top folders are made."""
    told = [given.bwrap, "--unshare-all", "--unshare-user", "--uid", str(INSIDE), "--gid", str(INSIDE)]
    if given.no_userns:
        told += ["--disable-userns", "--assert-userns-disabled"]
    # --unshare-all only tries to unshare the user namespace: asked for by name it must succeed.
    told += ["--hostname", "sandbox", "--cap-drop", "ALL", "--new-session", "--die-with-parent", "--as-pid-1"]
    told += ["--info-fd", str(given.info), "--block-fd", str(given.block)]
    if given.seccomp is not None:
        told += ["--seccomp", str(given.seccomp)]
    told += ["--clearenv", "--setenv", "PATH", PATH]
    told += ["--size", str(4 * _MEMORY), "--perms", "0755", "--tmpfs", "/"]
    told += _system()
    told += ["--dir", "/etc"]
    for path in filter(os.path.isdir, _ETC_SHOWN):
        told += ["--ro-bind", path, path]
    for name, fd in given.etc.items():
        told += ["--perms", "0644", "--file", str(fd), f"/etc/{name}"]
    told += ["--proc", "/proc", "--dev", "/dev"]
    told += [*_tmpfs(spec.shm), "--remount-ro", "/dev"]
    for folder in spec.folders:
        told += _tmpfs(folder)
    # Process 1 must be unreadable: what a process with its user id cannot read, it cannot trace or look into either.
    told += ["--perms", "0711", "--dir", "/.sandbox", "--perms", "0111", "--file", str(given.shell), SHELL]
    told += ["--perms", "0444", "--file", str(given.keeper), KEEPER]
    told += ["--ro-bind", given.pipes, PIPES]
    for mount in spec.mounts:
        told += ["--bind" if mount.writable else "--ro-bind", mount.source, mount.target]
    if not any(PurePosixPath(spec.cwd).is_relative_to(path) for path in ("/usr", *(m.target for m in spec.mounts))):
        told += ["--perms", "0755", "--dir", spec.cwd]
    told += ["--remount-ro", "/", "--chdir", "/"]
    return [*told, SHELL, KEEPER, given.pids]


def stands_on() -> list[tuple[str, int, int, int]]:
    """Return what identifies the files of the host that a sandbox has a copy of, and the folders that it shows."""
    copied = [Path("/etc", name) for name in ETC_COPIED]
    shown = [Path("/usr"), *map(Path, _ETC_SHOWN), *(Path("/", name) for name in _TOP)]
    facts = [(path, path.stat()) for path in (*copied, *shown) if path.exists()]
    return [(str(path), one.st_dev, one.st_ino, one.st_mtime_ns if path in copied else 0) for path, one in facts]


def _system() -> list[str]:
    """Return the host's programs: /usr, and the top folders that lead there."""
    told = ["--ro-bind", "/usr", "/usr"]
    for name in _TOP:
        path = Path("/", name)
        if path.is_symlink():
            told += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            told += ["--ro-bind", str(path), str(path)]
    return told


def _tmpfs(folder: Folder) -> list[str]:
    return ["--size", str(folder.size), "--perms", "1777", "--tmpfs", folder.path]


def check_mounts(spec: SandboxSpec, uid: int) -> None:
    """Refuse mounts that would hide what makes the sandbox, or that its user could not reach.

    Args:
        spec: The wish.
        uid: The user id on the host that everything inside has.

    Raises:
        InvalidOptions: With the mount and what to do.
    """
    for mount in spec.mounts:
        target = PurePosixPath(mount.target)
        hidden = any(target == PurePosixPath(path) for path in _OURS)
        if hidden or any(target.is_relative_to(path) for path in ("/usr", "/etc", "/proc", "/dev", "/.sandbox")):
            raise InvalidOptions(f"mount: {mount.target} is the sandbox's own; choose another place, such as /data")
        if closed := closed_to(Path(mount.source), uid):
            raise InvalidOptions(
                f"mount: the sandbox runs as another user than you, who cannot enter {closed};"
                " copy what you need with put, or use engine='docker'"
            )


def closed_to(path: Path, uid: int) -> Path | None:
    """Return the first folder on the way to `path` that this user (in no group) cannot enter."""
    for folder in reversed(path.parents):
        facts = folder.stat()
        bit = 0o100 if facts.st_uid == uid else 0o001
        if uid and not facts.st_mode & bit:
            return folder
    return None


def drop_to(uid: int) -> Sequence[str]:
    """Return what is put before bubblewrap so that real root is another user before anything else happens."""
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"] if os.getuid() == 0 else []
