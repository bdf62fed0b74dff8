"""What the tests see of this machine: what a sandbox could leave there."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

_ID_CHARACTERS = 12  # of an id are in every name that is made of it

# Podman keeps the monitor of a process in a container for five minutes after its end, in case somebody asks how it
# ended (`exit_command_delay` in its settings). Nothing of the sandbox is in it.
_PODMANS_DELAY = " --exit-delay "


def until(what: str, holds: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until something holds; fail with `what` if it does not come to that."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@dataclass(frozen=True, slots=True)
class Kept:
    """What this process holds.

    Attributes:
        descriptors: How many open files.
        threads: Its threads.
        children: The processes that it has started and not yet waited for.
    """

    descriptors: int
    threads: frozenset[str]
    children: frozenset[int]

    @classmethod
    def now(cls) -> Kept:
        """Look."""
        threads = frozenset(f"{thread.name} {thread.ident}" for thread in threading.enumerate())
        return cls(len(os.listdir("/dev/fd")), threads, frozenset(_children()))  # noqa: PTH208 # names are enough


def _children() -> Iterator[int]:
    return (pid for pid, parent in _parents() if parent == os.getpid())


def descendants() -> set[int]:
    """Return the processes that have come from this one, and whose ancestors still run."""
    parents = dict(_parents())
    found: set[int] = set()
    grown = {os.getpid()}
    while grown:
        grown = {pid for pid, parent in parents.items() if parent in grown}
        found |= grown
    return found


def _parents() -> Iterator[tuple[int, int]]:
    for process, text in _of_processes("stat"):
        yield process, int(text.rpartition(")")[2].split()[1])


def nothing_is_left(idents: Collection[str], seconds: float = 20) -> None:
    """Wait until `left` finds nothing; fail with what it finds."""
    deadline = time.monotonic() + seconds
    while names := left(idents):
        assert time.monotonic() < deadline, f"left on this machine: {names[:5]}"
        time.sleep(0.05)


def left(idents: Collection[str]) -> list[str]:
    """Return the processes, files and control groups of this machine that have the id of one of these sandboxes."""
    marks = {ident[:_ID_CHARACTERS] for ident in idents if len(ident) >= _ID_CHARACTERS}
    return [
        name for name in (*_commands(), *_paths()) if any(mark in name for mark in marks) and _PODMANS_DELAY not in name
    ]


def _commands() -> Iterator[str]:
    for _, text in _of_processes("cmdline"):
        yield text.replace("\0", " ")


def _of_processes(name: str) -> Iterator[tuple[int, str]]:
    """Yield what this file of each process holds. A pattern for all would fail at one that is just ending."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                yield int(folder.name), (folder / name).read_text(encoding="utf-8", errors="replace")


def _paths() -> Iterator[str]:
    """Yield where engines and we keep what lives as long as a sandbox; not all of /tmp: it may be huge."""
    yield from _below("/run", 6)
    yield from _below(os.environ.get("XDG_RUNTIME_DIR", ""), 6)
    yield from _below(tempfile.gettempdir(), 3)
    yield from _below("/sys/fs/cgroup", 20)


def _below(top: str, depth: int) -> Iterator[str]:
    for folder, folders, files in os.walk(top):
        yield from (f"{folder}/{name}" for name in (*folders, *files))
        if folder.count("/") - top.count("/") >= depth - 1:
            folders.clear()
