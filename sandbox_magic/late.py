"""`Late`: what background jobs print outside the cells that started them, kept until somebody takes it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

from sandbox_magic.capture import Capture
from sandbox_magic.protocol import STDERR, STDOUT, LateOutput

KEPT = 1 << 20  # bytes
LOST = f"background jobs printed more than {KEPT >> 20} MB that nobody took; the oldest of it is lost"

_ECHO_SECONDS = 2.0
_TOLD = 1 << 16  # bytes of one job that can be looked at again
_JOBS = 32


class Late:
    """Filled by one thread at a time; `take` may come from any."""

    def __init__(self) -> None:
        self._kept: deque[LateOutput] = deque()
        self._size = 0
        self._farewell: LateOutput | None = None
        self._recovered = 0.0
        self._told: dict[str, bytearray] = {}  # by job, also what was taken

    def recovered(self) -> None:
        """Take it that the shell was told to go on after a signal."""
        self._recovered = time.monotonic()

    def ended(self) -> None:
        """Take it that the shell has ended: its farewell was nobody's output."""
        self._farewell = None

    def take(self) -> list[LateOutput]:
        """Return what was kept, once."""
        taken = []
        while self._kept:
            taken.append(self._kept.popleft())
        self._size = 0
        return taken

    def told(self, job: str) -> str:
        """Return the end of what a job has printed, whether it was taken or not."""
        return bytes(self._told.get(job, b"")[-_TOLD:]).decode(errors="replace")

    def add(self, event: LateOutput) -> bool:
        """Keep a piece, unless the shell itself has said it; return whether an older one was lost for it."""
        if (event.stream, event.data) == (STDERR, b"\n") and time.monotonic() - self._recovered < _ECHO_SECONDS:
            return False  # what an interactive bash says to a SIGINT that came when its cell had just ended
        held, self._farewell = self._farewell, None
        if (event.stream, event.data) == (STDERR, b"exit\n"):
            self._farewell = event  # what an interactive bash says when it ends
            return held is not None and self._append(held)
        lost = held is not None and self._append(held)
        return self._append(event) or lost

    def _append(self, event: LateOutput) -> bool:
        if event.job:
            self._tell(self._told.pop(event.job, bytearray()), event)
        self._kept.append(event)
        self._size += len(event.data)
        over = self._size > KEPT
        while self._size > KEPT and self._kept:
            self._size -= len(self._kept.popleft().data)
        return over

    def _tell(self, told: bytearray, event: LateOutput) -> None:
        told += event.data
        if len(told) > 2 * _TOLD:  # not at each piece
            del told[:-_TOLD]
        self._told[event.job] = told
        if len(self._told) > _JOBS:
            del self._told[next(iter(self._told))]  # the one that has been silent for the longest time


def meanwhile(capture: Capture, *mine: bytes) -> Iterator[LateOutput]:
    """Yield what background jobs have printed while code of ours ran, which has said nothing itself but `mine`."""
    for stream, data in ((STDOUT, capture.stdout()), (STDERR, capture.stderr())):
        for part in mine:
            data = data.replace(part, b"")  # noqa: PLW2901 # what is left of it
        if data:
            yield LateOutput(stream, data)
