"""`Pulse`: while a cell is silent for long, is there still somebody who could speak?

A cell may be silent for hours. But a frozen engine or a paused container is silent too, and says nothing when asked by
the streams. So the engine is asked, in a thread of its own, for it may not answer either.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from sandbox_magic.engines.base import Machine
from sandbox_magic.errors import EngineError

SILENT_SECONDS = 10.0  # until the engine is asked, and between two questions
_ANSWERS = 2  # bad ones in a row end a cell: a snapshot pauses a container for a moment


class Pulse:
    """Asks about one cell. Not thread-safe; the pump of the session drives it.

    Attributes:
        trouble: Why the cell cannot go on; `None` as long as that is not sure.
    """

    def __init__(self, machine: Machine, wake: Callable[[], None]) -> None:
        """Describe it; `wake` is called when there is an answer."""
        self.trouble: EngineError | None = None
        self._machine = machine
        self._wake = wake
        self._due = time.monotonic() + SILENT_SECONDS
        self._asking = False
        self._bad = 0

    def wait(self, *, heard: bool) -> float:
        """Ask if it is time to, and return the seconds until it is; `heard` says that the cell has spoken meanwhile."""
        now = time.monotonic()
        if heard:
            self._due, self._bad = now + SILENT_SECONDS, 0
        elif now >= self._due:
            self.ask(_ANSWERS)
        return max(0.0, self._due - now)

    def ask(self, answers: int = 1) -> None:
        """Ask now; so many bad answers in a row are needed to end the cell."""
        self._due = time.monotonic() + SILENT_SECONDS
        if not self._asking:
            self._asking = True
            threading.Thread(target=self._look, args=(answers,), name="sandbox-pulse", daemon=True).start()

    def _look(self, answers: int) -> None:
        trouble = self._machine.trouble()
        if trouble is None and not self._machine.alive():  # seen with gVisor: its kernel is killed, the stream stays
            trouble = EngineError("the sandbox has ended, and its engine has left the stream to it open")
        self._bad = self._bad + 1 if trouble else 0
        self._asking = False
        if trouble is not None and self._bad >= answers:
            self.trouble = trouble
            self._wake()
