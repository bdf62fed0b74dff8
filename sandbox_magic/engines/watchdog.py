"""A watchdog over the memory of process trees, for hosts where no control group can be made.

It samples: a tree that grows by more than its limit between two looks is ended only then.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

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
            used = _used_by_trees(limits)
            for pid, limit in limits.items():
                if used.get(pid, 0) > limit:
                    self.forget(pid)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            time.sleep(_EVERY_SECONDS)


def _used_by_trees(roots: dict[int, int]) -> dict[int, int]:
    """Return the resident memory below each of these processes, in bytes."""
    parents: dict[int, int] = {}
    pages: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)], pages[int(entry.name)] = int(fields[1]), int(fields[21])
    used = dict.fromkeys(roots, 0)
    for process, size in pages.items():
        above = process
        while above and above not in used:
            above = parents.get(above, 0)
        if above:
            used[above] += size * _PAGE
    return used


_watchdog: Watchdog | None = None
_lock = threading.Lock()


def watchdog() -> Watchdog:
    """Return this process's watchdog."""
    global _watchdog  # noqa: PLW0603 # one for the process, made on first use, and anew after a fork
    with _lock:
        if _watchdog is None:
            _watchdog = Watchdog()
        return _watchdog


def _forget() -> None:
    global _watchdog, _lock  # the thread did not come along; another one may have held the lock
    _watchdog, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
