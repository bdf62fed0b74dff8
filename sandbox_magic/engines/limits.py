"""Whether a sandbox's limits hold: what was wished, against what the kernel says inside.

An engine may take a wish and drop it: a controller that is not mounted, a rootless engine, a runtime that ignores
control groups. So nothing counts but what is read after the start.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox_magic.spec import FILES_HARD, FILES_SOFT, Folder, SandboxSpec

Ask = Callable[[str], str]
Told = Mapping[str, Sequence[str]]

_GROUPS = "/sys/fs/cgroup"
_FILES = (
    f"{_GROUPS}/memory.max",
    f"{_GROUPS}/memory.swap.max",
    f"{_GROUPS}/pids.max",
    f"{_GROUPS}/cpu.max",
    f"{_GROUPS}/memory/memory.limit_in_bytes",
    f"{_GROUPS}/memory/memory.memsw.limit_in_bytes",
    f"{_GROUPS}/pids/pids.max",
    f"{_GROUPS}/cpu/cpu.cfs_quota_us",
    f"{_GROUPS}/cpu/cpu.cfs_period_us",
    "/proc/swaps",
    "/proc/self/limits",
)
# How often the kernel has ended a process for want of memory, or refused one.
_COUNTERS = {
    "memory": (("memory.events", "memory/memory.oom_control"), "oom_kill"),
    "processes": (("pids.events", "pids/pids.events"), "max"),
}
COUNTS = f"""for file in {" ".join(f"{_GROUPS}/{name}" for names, _ in _COUNTERS.values() for name in names)}; do
  [ -r "$file" ] && while IFS= read -r line; do printf '%s %s\\n' "$file" "$line"; done <"$file"
done"""
OF_A_PROCESS = {"core file size": 0, "open files": FILES_HARD}
# Builtins only, and in a child, so that nothing of it stays in the shell that runs it.
SCRIPT = f"""(
for file in {" ".join(_FILES)}; do
  [ -r "$file" ] && while IFS= read -r line; do printf '%s %s\\n' "$file" "$line"; done <"$file"
done
while read -r device path type options rest; do
  case $type in tmpfs) printf 'mount %s %s\\n' "$path" "$options" ;; esac
done </proc/self/mounts
) 2>/dev/null
"""


@dataclass(frozen=True, slots=True)
class Wish:
    """What shall hold.

    Attributes:
        memory: Bytes, swap included.
        pids: Processes and threads.
        cpus: Processors' time.
        file_size: Bytes of the largest file; `None` for no bound.
        folders: What is in memory, with its bounds; those of files are looked at where they are not 0.
    """

    memory: int
    pids: int
    cpus: float
    file_size: int | None
    folders: tuple[Folder, ...]

    @classmethod
    def of(cls, spec: SandboxSpec, cpus: float) -> Wish:
        """Return what a container of this wish shall have."""
        folders = (spec.shm, *(spec.folders if spec.limits.read_only else ()))
        return cls(spec.memory_bytes, spec.pids_most, cpus, spec.limits.file_size, folders)


def setting(file_size: int | None) -> tuple[str, ...]:
    """Return what, put before the words of a process, sets its limits: for an engine that does not."""
    size = "" if file_size is None else f"ulimit -f {file_size // 512}; "  # a shell called `sh` counts blocks of 512
    return ("sh", "-c", f'ulimit -c 0; ulimit -Sn {FILES_SOFT}; ulimit -Hn {FILES_HARD}; {size}exec "$@"', "sh")


def told(text: str) -> Told:
    """Return what `SCRIPT` has printed: the lines of each file, the options of each folder in memory."""
    lines: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(" ")
        lines.setdefault(name, []).append(rest)
    return lines


def process_1(above: int) -> int:
    """Return the child of a process on this machine; 0 if it has none."""
    return int((_read(f"/proc/{above}/task/{above}/children").split() or ["0"])[0])


def of_process(pid: int) -> Told:
    """Return the same of a process on this machine, without asking anything inside; no control groups."""
    mounts = [line.split() for line in _read(f"/proc/{pid}/mounts").splitlines()]
    return {
        "/proc/self/limits": _read(f"/proc/{pid}/limits").splitlines(),
        "mount": [f"{path} {options}" for _, path, kind, options, *_ in mounts if kind == "tmpfs"],
    }


def broken(wish: Wish, said: Told) -> tuple[str, ...]:
    """Return the limits that do not hold, each with what was found; empty if all do."""
    of_a_process = OF_A_PROCESS | ({} if wish.file_size is None else {"file size": wish.file_size})
    return (*groups(wish, said), *rlimits(of_a_process, said), *in_memory(wish.folders, said))


def counts(said: Told) -> dict[str, int]:
    """Return how often each limit was reached, from what `COUNTS` has printed."""
    found = {}
    for limit, (names, word) in _COUNTERS.items():
        for line in (line for name in names for line in said.get(f"{_GROUPS}/{name}", ())):
            key, _, number = line.partition(" ")
            if key == word and number.isdecimal():
                found[limit] = int(number)
    return found


def groups(wish: Wish, said: Told) -> Iterator[str]:
    """Yield what the control groups do not limit, in either version of their interface."""

    def one(*names: str) -> str:
        return next((said[f"{_GROUPS}/{name}"][0] for name in names if f"{_GROUPS}/{name}" in said), "no limit")

    memory = one("memory.max", "memory/memory.limit_in_bytes")
    if not _within(memory, wish.memory):
        yield f"memory ({memory} instead of {wish.memory})"
    newer = f"{_GROUPS}/memory.max" in said
    swap = one("memory.swap.max") if newer else one("memory/memory.memsw.limit_in_bytes")
    if not _within(swap, 0 if newer else wish.memory) and len(said.get("/proc/swaps", ("", ""))) > 1:
        yield f"swap ({swap})"
    pids = one("pids.max", "pids/pids.max")
    if not _within(pids, wish.pids):
        yield f"processes ({pids} instead of {wish.pids})"
    shares = one("cpu.max").split() if newer else [one("cpu/cpu.cfs_quota_us"), one("cpu/cpu.cfs_period_us")]
    if not (all(map(str.isdecimal, shares)) and int(shares[0]) <= int(shares[1]) * (wish.cpus + 0.001)):
        yield f"processors ({shares[0]} instead of {wish.cpus:g})"


def rlimits(wished: Mapping[str, int], said: Told) -> Iterator[str]:
    """Yield which of the limits of a process are not set; by their names in /proc/PID/limits."""
    found = {}
    for line in said.get("/proc/self/limits", ()):
        if match := re.match(r"Max (.+?) {2,}(\S+) +(\S+)", line):
            found[match[1]] = match[3]
    for name, most in wished.items():
        hard = found.get(name, "unknown")
        if not _within(hard, most):
            yield f"{name} ({hard} instead of {most})"


def in_memory(folders: Sequence[Folder], said: Told) -> Iterator[str]:
    """Yield which folders are not bounded."""
    mounts = dict(line.split(" ", 1) for line in said.get("mount", ()))
    for folder in folders:
        options = dict(option.partition("=")[::2] for option in mounts.get(folder.path, "").split(","))
        size, files = options.get("size", "no bound"), options.get("nr_inodes", "no bound")
        if not _within(_in_bytes(size), folder.size):
            yield f"size of {folder.path} ({size} instead of {folder.size})"
        if folder.files and not _within(_in_bytes(files), folder.files):
            yield f"number of files in {folder.path} ({files} instead of {folder.files})"


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _within(found: str, most: int) -> bool:
    return found.isdecimal() and int(found) <= most


def _in_bytes(text: str) -> str:
    return str(int(text[:-1]) << 10) if text.endswith("k") and text[:-1].isdecimal() else text
