"""How all measurements are made: variants take turns in one run, medians count, every group has a time limit."""

from __future__ import annotations

import gc
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        ok: Whether it is within its budget; `None` if it has none and is there to compare with.
    """

    what: str
    number: str
    budget: str = ""
    ok: bool | None = None

    def __str__(self) -> str:
        verdict = "" if self.ok is None else "ok" if self.ok else "over"
        return f"{self.what:<58}  {self.number:>12}  {self.budget:>12}  {verdict}".rstrip()


Rows = Iterator[Row]


def compared(what: str, seconds: float) -> Row:
    """Return a line without a budget."""
    return Row(what, shown(seconds))


def limited(what: str, seconds: float, budget: float) -> Row:
    """Return a line whose time must not be above `budget` seconds."""
    return Row(what, shown(seconds), f"<= {shown(budget)}", seconds <= budget)


def at_most(what: str, ratio: float, budget: float) -> Row:
    """Return a line whose ratio must not be above `budget`."""
    return Row(what, f"{ratio:.2f}x", f"<= {budget:g}x", ratio <= budget)


def at_least(what: str, ratio: float, budget: float) -> Row:
    """Return a line whose ratio must not be below `budget`."""
    return Row(what, f"{ratio:.2f}x", f">= {budget:g}x", ratio >= budget)


def shown(seconds: float) -> str:
    """Return a time with a unit that fits it."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def seconds(action: Callable[[], object]) -> float:
    """Return how long `action` takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def medians(rounds: int, variants: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """Return the median of each variant; each returns its own time.

    They take turns, and every round begins with another one, so that what the machine does meanwhile, and what one
    variant leaves to the next, meets all of them.
    """
    times: dict[str, list[float]] = {name: [] for name in variants}
    order = list(variants)
    gc.collect()
    for _ in range(rounds):
        for name in order:
            times[name].append(variants[name]())
        order.append(order.pop(0))
    return {name: statistics.median(values) for name, values in times.items()}


@contextmanager
def time_limit(limit: int) -> Iterator[None]:
    """Raise `TimeoutError` if what is inside takes longer than `limit` seconds."""

    def handler(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"not done after {limit} s")

    previous = signal.signal(signal.SIGALRM, handler)
    signal.alarm(limit)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
