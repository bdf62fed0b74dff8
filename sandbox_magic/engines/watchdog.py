"""A watchdog over the memory of process trees, for hosts where no control group can be made.

It samples: a tree that grows by more than its limit between two looks is ended only then. It sees what processes have
mapped: files in memory have bounds of their own (/tmp and so on) or none (memfd).
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from sandbox_magic.per_process import PerProcess

_EVERY_SECONDS = 0.25
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Watchdog:
    """One daemon thread; it ends a tree whose processes have more memory together than they may."""

    def __init__(self) -> None:
        self._limits: dict[int, int] = {}
        self._changed = threading.Condition()
        threading.Thread(target=self._loop, name="sandbox-watchdog", daemon=True).start()

    def guard(self, pid: int, limit: int) -> None:
        """Watch the tree below a process; `limit` is in bytes."""
        with self._changed:
            self._limits[pid] = limit
            self._changed.notify()

    def forget(self, pid: int) -> None:
        """Watch it no more."""
        with self._changed:
            self._limits.pop(pid, None)

    def _loop(self) -> None:
        while True:
            with self._changed:
                while not self._limits:
                    self._changed.wait()
                limits = dict(self._limits)
            trees = _trees(limits)
            for pid, limit in limits.items():
                if _exceeds(trees[pid], limit):
                    self.forget(pid)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            time.sleep(_EVERY_SECONDS)


def _trees(roots: Iterable[int]) -> dict[int, dict[int, int]]:
    """Return the processes below each of these, itself included, with their resident memory in bytes."""
    parents: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)], sizes[int(entry.name)] = int(fields[1]), int(fields[21]) * _PAGE
    trees: dict[int, dict[int, int]] = {root: {} for root in roots}
    for process, size in sizes.items():
        above = process
        while above and above not in trees:
            above = parents.get(above, 0)
        if above:
            trees[above][process] = size
    return trees


def _exceeds(tree: Mapping[int, int], limit: int) -> bool:
    """Whether the processes of a tree have more memory together than `limit` bytes.

    What they share counts for each in what `_trees` found, and many small processes share most of what they have. So a
    tree that seems too large is looked at again, more closely, which costs more.
    """
    return sum(tree.values()) > limit and sum(_share(pid, size) for pid, size in tree.items()) > limit


def _share(pid: int, size: int) -> int:
    """Return a process's own memory and its part of what it shares; all of `size` if it does not let us see."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return size if Path(f"/proc/{pid}").exists() else 0
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    return size


watchdog = PerProcess(Watchdog)
