"""Which files and folders of the host may be shown inside a sandbox.

A folder is known by what it is (device and inode), not by what it is called: a symbolic link, a bind mount and a path
with ``..`` in it are the same folder under other names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

_SECRETS = "the whole folder holds secrets or programs of the host"
_POWER = "it lets a sandbox act on the host"
_SOCKET = "a socket gives a sandbox the rights of whoever listens there"
_STATE = "it holds the state of engines, kernels or sandboxes"

# Refused as a whole; what lies below may be named.
_FOLDERS = (
    *("/", "/etc", "/root", "/home", "/var", "/var/lib", "/run", "/usr", "/boot", "/tmp", "/var/tmp"),  # noqa: S108 # the host's
)
# Refused with everything below, and so is what they lie in.
_POWERS = ("/proc", "/sys", "/dev", "/boot")
_STATES = (
    *("/run/docker", "/run/containerd", "/run/podman", "/run/crio", "/run/libpod", "/run/containers"),
    *("/var/lib/docker", "/var/lib/containerd", "/var/lib/containers", "/run/sandbox-magic"),
)
_HOME_STATES = (
    ".cache/sandbox-magic",
    ".local/share/containers",
    ".local/share/docker",
    ".local/share/jupyter/runtime",
)
# What gives the rights of its owner away, wherever it is; a folder that it lies in is refused.
_SOCKETS = ("/run/docker.sock", "/run/podman/podman.sock", "/run/containerd/containerd.sock", "/run/crio/crio.sock")
_HOME_SOCKETS = (
    *(".docker/run/docker.sock", ".docker/desktop/docker.sock", ".rd/docker.sock", ".orbstack/run/docker.sock"),
    *(".colima/default/docker.sock", ".colima/docker.sock"),
)
_SOCKET_NAMES = ("docker.sock", "podman.sock", "containerd.sock")
# File systems that are no files: the kernel, and devices. They may be mounted anywhere.
_KERNEL = re.compile(
    "proc|sysfs|devtmpfs|devpts|cgroup2?|debugfs|tracefs|securityfs|bpf|pstore|efivarfs|binfmt_misc|configfs|fusectl"
)

_Identity = tuple[int, int]


def danger(path: Path, sockets: Iterable[str] = ()) -> str:
    """Return why this path of the host, links resolved, may not be shown inside; empty if it may.

    Args:
        path: The file or folder.
        sockets: Sockets of engines, beside those that the environment and the system's conventions name.
    """
    mounts = list(_mounts_below(path))
    for place in (path, *mounts):
        if reason := _danger(place, sockets):
            return reason if place == path else f"{place} is mounted in it, and {reason}"
    return ""


def _danger(path: Path, sockets: Iterable[str]) -> str:
    if path.is_socket() or path.name in _SOCKET_NAMES:
        return _SOCKET
    own = _identity(path)
    above = {_identity(folder) for folder in (path, *path.parents)}
    if own in _identities((*_FOLDERS, Path.home())):
        return _SECRETS
    if above & _identities(_POWERS) - _identities("/") or _on_kernel(path):
        return _POWER
    states = _states()
    if above & _identities(states):
        return _STATE
    listening = [*_sockets(), *map(Path, sockets)]
    for kept, reason in ((listening, _SOCKET), (states, _STATE), ([Path.home()], _SECRETS)):
        for place in kept:
            if place.exists() and own in {_identity(folder) for folder in _with_parents(place)}:
                return f"{place} lies in it: {reason}"
    return ""


def _with_parents(place: Path) -> Iterator[Path]:
    """Yield a path and the folders on its way, as it is written and as it is once its links are followed."""
    for path in (Path(os.path.abspath(place)), place.resolve()):  # noqa: PTH100 # links are to stay
        yield from (path, *path.parents)


def _identity(path: Path) -> _Identity:
    try:
        facts = path.stat()
    except OSError:  # not there, or not to be reached by us, so neither by a sandbox through us
        return (0, 0)
    return facts.st_dev, facts.st_ino


def _identities(paths: Iterable[str | Path]) -> set[_Identity]:
    return {_identity(Path(path)) for path in paths} - {(0, 0)}


def _states() -> list[Path]:
    """Return the folders of engines, of Jupyter's kernels and of our own."""
    runtime, data = os.environ.get("XDG_RUNTIME_DIR"), os.environ.get("XDG_DATA_HOME")
    below = [Path(runtime, name) for name in ("docker", "podman", "containers", "sandbox-magic")] if runtime else []
    jupyter = [Path(data, "jupyter/runtime")] if data else []
    if named := os.environ.get("JUPYTER_RUNTIME_DIR"):
        jupyter.append(Path(named))
    below.append(Path(f"/tmp/sandbox-magic-{os.getuid()}"))  # noqa: S108 # see traces.home
    return [*map(Path, _STATES), *(Path.home() / name for name in _HOME_STATES), *below, *jupyter]


def _sockets() -> list[Path]:
    """Return where engines and agents of this user may listen."""
    named = [os.environ.get(name, "").removeprefix("unix://") for name in ("DOCKER_HOST", "CONTAINER_HOST")]
    named += [os.environ.get("SSH_AUTH_SOCK", ""), os.environ.get("DBUS_SESSION_BUS_ADDRESS", "").partition("path=")[2]]
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        named += [f"{runtime}/docker.sock", f"{runtime}/podman/podman.sock", f"{runtime}/bus"]
    absolute = [Path(name) for name in named if name.startswith("/")]
    return [*map(Path, _SOCKETS), *(Path.home() / name for name in _HOME_SOCKETS), *absolute]


def _mount_table() -> Iterator[tuple[str, Path, str]]:
    """Yield the device, the place and the kind of each mount of this machine, where it tells."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:
        fields, _, rest = line.partition(" - ")
        device, place = fields.split()[2], fields.split()[4]
        yield device, Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), place)), rest.split()[0]


def _mounts_below(path: Path) -> Iterator[Path]:
    yield from (place for _, place, _ in _mount_table() if place != path and place.is_relative_to(path))


def _on_kernel(path: Path) -> bool:
    number = _identity(path)[0]
    device = f"{os.major(number)}:{os.minor(number)}"
    return any(device == found and _KERNEL.fullmatch(kind) for found, _, kind in _mount_table())
