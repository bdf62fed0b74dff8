"""Limits by control groups: a leaf of our own for a sandbox, in the version of the interface that the host has.

`leaf` tries what the host may offer, in order: version 2 where we may make a group below (delegated, or root),
version 1 (root). Each limit is read back; one that does not hold is not offered. `scopes` is what else a user may have.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox_magic.errors import EngineError

ROOT = Path("/sys/fs/cgroup")
CONTROLLERS = frozenset({"memory", "pids", "cpu"})
_PERIOD = 100_000  # microseconds over which processor time is shared out
_PARENT = "sandbox-magic"
_REMOVE_SECONDS = 2.0
_EVENTS = (
    ("memory.events", "oom_kill", "memory"),
    ("memory.oom_control", "oom_kill", "memory"),
    ("pids.events", "max", "processes"),
)


@dataclass(frozen=True, slots=True)
class Wish:
    """What shall hold: bytes of memory and swap together, processes and threads, processors' time."""

    memory: int
    pids: int
    cpus: float

    def describe(self) -> dict[str, object]:
        """Return them as `status` shows them."""
        return {"memory limit": self.memory, "pids limit": self.pids, "cpus limit": self.cpus}


class Leaf:
    """A group, or in version 1 three, for one sandbox.

    Attributes:
        kind: What the user is told, such as ``"cgroup v2"``.
        folders: The groups that a process must join.
    """

    def __init__(self, kind: str, folders: Sequence[Path]) -> None:
        self.kind = kind
        self.folders = folders

    def join(self, *processes: int) -> None:
        """Move processes into the group. It may take 10 ms: the kernel waits until nobody looks at the old one.

        Raises:
            EngineError: The kernel refuses.
        """
        for folder in self.folders:
            for process in processes:
                try:
                    (folder / "cgroup.procs").write_text(str(process))
                except ProcessLookupError:
                    return  # it has ended already, and says why itself
                except OSError as error:
                    raise EngineError(
                        f"{folder}: the sandbox cannot join its control group: {error.strerror}"
                    ) from None

    def holds(self, process: int) -> bool:
        """Whether a process is in the group: told by the kernel, not by what was written."""
        name = "/".join(self.folders[0].parts[-2:])
        found = [line for line in _read(Path(f"/proc/{process}/cgroup")).splitlines() if line.endswith(f"/{name}")]
        return len(found) >= len(self.folders)

    def reached(self) -> dict[str, int]:
        """Return how many processes the limit of memory has cost, and how many could not be made."""
        found = {"memory": 0, "processes": 0}
        for file, word, limit in _EVENTS:
            for line in (line for folder in self.folders for line in _read(folder / file).splitlines()):
                if line.startswith(f"{word} "):
                    found[limit] = int(line.split()[1])
        return found


def remove(folders: Sequence[Path]) -> None:
    """Remove groups once the last of their processes is gone."""
    deadline = time.monotonic() + _REMOVE_SECONDS
    for folder in folders:
        while folder.is_dir():
            try:
                folder.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    return  # `sandbox-magic gc` tries again
                time.sleep(0.002)  # the kernel does not say when


def leaf(name: str, wish: Wish) -> Leaf | None:
    """Return a group with these limits; `None` where the host lets us make none that holds them all."""
    for make in (_version_2, _version_1):
        with contextlib.suppress(OSError, EngineError):
            return make(name, wish)
    return None


def _version_2(name: str, wish: Wish) -> Leaf:
    for folder in _places_2(name):
        parent = folder.parent.parent
        try:
            _delegate(parent)
            folder.parent.mkdir(exist_ok=True)
            _delegate(folder.parent)
            folder.mkdir()
        except OSError:
            continue
        try:
            for file, value in _limits_2(folder, wish).items():
                (folder / file).write_text(value)
            compare(folder, wish)
            return Leaf("cgroup v2", [folder])
        except (OSError, EngineError):
            folder.rmdir()
    raise EngineError("no delegated group")


def compare(folder: Path, wish: Wish) -> None:
    """Read the limits of a group of version 2 back.

    Raises:
        EngineError: One does not hold.
    """
    for file, value in _limits_2(folder, wish).items():
        _compare(folder / file, value)


def _limits_2(folder: Path, wish: Wish) -> dict[str, str]:
    limits = {
        "memory.max": str(wish.memory),
        "memory.swap.max": "0",
        "pids.max": str(wish.pids),
        "cpu.max": f"{int(wish.cpus * _PERIOD)} {_PERIOD}",
    }
    if not (folder / "memory.swap.max").exists() and len(_read(Path("/proc/swaps")).splitlines()) < 2:
        del limits["memory.swap.max"]  # a kernel that does not count swap, and has none
    return limits


def places(name: str) -> list[Path]:
    """Return the folders of all groups that `leaf` may make, so that they can be written down before there are any."""
    return [*_places_2(name), *_places_1(name).values()]


def _places_2(name: str) -> list[Path]:
    return [parent / _PARENT / name for parent in _parents()]


def _parents() -> Iterator[Path]:
    """Yield the groups of version 2 below which we may make one: those above our own, and for root the top."""
    if not (ROOT / "cgroup.controllers").exists():
        return
    own = _read(Path("/proc/self/cgroup")).partition("0::/")[2].strip()
    group = ROOT / own
    above = [each for each in group.parents if each == ROOT or ROOT in each.parents]
    for group in above or [ROOT]:  # the top one may have processes and groups at once
        if os.access(group, os.W_OK) and os.access(group / "cgroup.procs", os.W_OK):
            yield group


def controllers(group: Path) -> set[str]:
    """Return what a group of version 2 can limit; nothing if there is no such group."""
    return set(_read(group / "cgroup.controllers").split())


def _delegate(group: Path) -> None:
    have = set(_read(group / "cgroup.subtree_control").split())
    if lacking := CONTROLLERS - have:
        (group / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(lacking)))


def _version_1(name: str, wish: Wish) -> Leaf:
    folders: dict[str, Path] = {}
    try:
        for controller, folder in _places_1(name).items():
            folder.parent.mkdir(exist_ok=True)
            folder.mkdir()
            folders[controller] = folder
        memory = folders["memory"]
        _limit(memory / "memory.limit_in_bytes", wish.memory)
        if (memory / "memory.memsw.limit_in_bytes").exists():
            _limit(memory / "memory.memsw.limit_in_bytes", wish.memory)
        _limit(folders["pids"] / "pids.max", wish.pids)
        _limit(folders["cpu"] / "cpu.cfs_period_us", _PERIOD)
        _limit(folders["cpu"] / "cpu.cfs_quota_us", int(wish.cpus * _PERIOD))
    except (OSError, KeyError, EngineError):
        remove(list(folders.values()))
        raise EngineError("no groups of version 1 can be made") from None
    return Leaf("cgroup v1", list(folders.values()))


def _places_1(name: str) -> dict[str, Path]:
    own = dict(_own_groups())
    tops = {controller: ROOT / controller for controller in ("memory", "pids", "cpu") if controller in own}
    groups = {controller: top / own[controller].lstrip("/") for controller, top in tops.items()}
    return {each: (group if group.is_dir() else tops[each]) / _PARENT / name for each, group in groups.items()}


def _own_groups() -> Iterator[tuple[str, str]]:
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, names, path = line.split(":", 2)
        for controller in names.split(","):
            yield controller, path


def _limit(file: Path, value: object) -> None:
    file.write_text(str(value))
    _compare(file, str(value))


def _compare(file: Path, wanted: str) -> None:
    """Read a limit back; the kernel rounds memory to pages."""
    found = _read(file).strip()
    if found != wanted and not (wanted.isdigit() and found.isdigit() and 0 <= int(wanted) - int(found) < 1 << 16):
        raise EngineError(f"{file} holds {found} instead of {wanted}")


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
