"""One thread of this process that starts what shall end with this process.

``PR_SET_PDEATHSIG`` belongs to the thread that has forked, not to the process: a sandbox started from a worker thread
would be killed as soon as that thread ends. This thread lives until the process ends.
"""

from __future__ import annotations

import queue
import subprocess
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from sandbox_magic.per_process import PerProcess

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


spawner = PerProcess(Spawner)
