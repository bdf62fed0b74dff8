"""SIGINT as a request instead of an exception, so that it cannot fall between any two steps of the pump."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # the wrappers in `signal` turn handlers into enumerations and back, which costs each cell 20 us
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGINT = int(signal.SIGINT)
_IMPATIENT = 5  # so many requests without an end, and the interrupt is raised wherever we are


@contextmanager
def deferred_interrupts(request: Callable[[], None]) -> Iterator[None]:
    """Call `request` for each SIGINT inside, and raise `KeyboardInterrupt` at the end if there was one.

    In other threads than the main one, and where somebody has replaced Python's handler, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    count = 0

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count >= _IMPATIENT:
            signal.default_int_handler(number, frame)
        request()

    previous = _signal.signal(_SIGINT, handler)
    if previous is not signal.default_int_handler:  # not ours to replace
        _signal.signal(_SIGINT, previous)
        yield
        return
    try:
        yield
    finally:
        _signal.signal(_SIGINT, previous)
    if count:
        raise KeyboardInterrupt
