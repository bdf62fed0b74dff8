"""Starts and resets from a spare, and without one."""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.measure import Rows, compared, limited, medians, seconds
from sandbox_magic import Sandbox
from sandbox_magic.spare import spares

_SPARE_SECONDS = 10.0


def starts(engine: str, *, start: float, reset: float) -> Rows:
    """Both ways: with a spare that waits when they have paused for a moment, and without.

    Args:
        engine: Its name.
        start: Budget of a start to its first result, from a spare, in seconds.
        reset: That of a reset.
    """

    def first_result(spare: bool) -> float:
        box = Sandbox(engine=engine, spare=spare)
        took = seconds(lambda: box.run("true", check=True))
        box.close()
        return took

    def waited(action: Callable[[], float]) -> float:
        end = time.monotonic() + _SPARE_SECONDS
        while spares().ready() is None:
            if time.monotonic() > end:
                raise TimeoutError("no spare was made")
            time.sleep(0.02)
        return action()

    first_result(spare=False)
    with Sandbox(engine=engine, spare=False) as plain, Sandbox(engine=engine, spare=True) as box:
        found = medians(
            10,
            {
                "first": lambda: waited(lambda: first_result(spare=True)),
                "first, plain": lambda: first_result(spare=False),
                "reset": lambda: waited(lambda: seconds(box.reset)),
                "reset, plain": lambda: seconds(plain.reset),
            },
        )
    spares().end()
    yield limited(f"{engine}: start to first result, from a spare", found["first"], start)
    yield compared("  without one (the first of a process; or no pause before)", found["first, plain"])
    yield limited(f"{engine}: reset, to a spare", found["reset"], reset)
    yield compared("  without one", found["reset, plain"])


def with_docker() -> Rows:
    yield from starts("docker", start=0.03, reset=0.05)
