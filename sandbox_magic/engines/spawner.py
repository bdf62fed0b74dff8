"""One thread of this process that starts what shall end with this process.

``PR_SET_PDEATHSIG`` belongs to the thread that has forked, not to the process: a sandbox started from a worker thread
would be killed as soon as that thread ends. This thread lives until the process ends.
"""

from __future__ import annotations

import os
import queue
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

_Job = tuple[Sequence[str], dict[str, Any], "Future[subprocess.Popen[bytes]]"]


class Spawner:
    """Starts processes, one after another."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="sandbox-spawner", daemon=True).start()

    def start(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a process as `subprocess.Popen` does.

        Raises:
            OSError: The program cannot be started.
        """
        started: Future[subprocess.Popen[bytes]] = Future()
        self._jobs.put((argv, options, started))
        return started.result()

    def _work(self) -> None:
        while True:
            argv, options, started = self._jobs.get()
            try:
                started.set_result(_popen(argv, options))
            except BaseException as error:  # noqa: BLE001 # whoever waits for it raises it
                started.set_exception(error)


def _popen(argv: Sequence[str], options: dict[str, Any]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv, **options)


_spawner: Spawner | None = None
_lock = threading.Lock()


def spawner() -> Spawner:
    """Return this process's spawner."""
    global _spawner  # noqa: PLW0603 # one for the process, made on first use, and anew after a fork
    with _lock:
        if _spawner is None:
            _spawner = Spawner()
        return _spawner


def _forget() -> None:
    global _spawner, _lock  # the thread did not come along; another one may have held the lock
    _spawner, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
