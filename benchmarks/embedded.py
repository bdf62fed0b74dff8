"""The embedded engine: bubblewrap."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.measure import Row, Rows, at_least, compared, limited, medians, seconds
from sandbox_magic import Sandbox
from sandbox_magic.spare import spares

_IDLE = 100
_SPARE_SECONDS = 10.0
_GIGABYTE = 1_000_000_000


def embedded() -> Rows:
    yield from _starts()
    for shell in ("bash", "sh"):
        with Sandbox(engine="bubblewrap", shell=shell) as box:
            run = partial(box.run, "true")
            run()
            found = medians(1000, {"run": lambda run=run: seconds(run)})  # type: ignore[misc]
            yield limited(f'bubblewrap: run("true") in {shell} (goal: 0.15 ms)', found["run"], 0.0005)
    with Sandbox(engine="bubblewrap") as box:
        took = seconds(lambda: box.run(f"head -c {_GIGABYTE} /dev/zero", check=True))
        yield at_least("bubblewrap: 1 GB of output, 64 MB kept, GB/s", 1 / took, 1)
    yield from _idle()


def _starts() -> Rows:
    """Both ways: as users have it, with a spare that waits when they have paused for a moment, and without."""

    def first_result(spare: bool) -> float:
        box = Sandbox(engine="bubblewrap", spare=spare)
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
    with Sandbox(engine="bubblewrap", spare=False) as plain, Sandbox(engine="bubblewrap", spare=True) as box:
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
    yield limited("bubblewrap: start to first result, from a spare", found["first"], 0.02)
    yield compared("  without one (the first of a process; or no pause before)", found["first, plain"])
    yield limited("bubblewrap: reset, to a spare", found["reset"], 0.02)
    yield compared("  without one", found["reset, plain"])


def _idle() -> Rows:
    gc.collect()
    memory, threads = _resident(), threading.active_count()
    boxes = [Sandbox(engine="bubblewrap", spare=False).start() for _ in range(_IDLE)]
    for box in boxes:
        box.run("true")
    gc.collect()
    each = (_resident() - memory) / _IDLE
    more = threading.active_count() - threads
    yield Row(f"{_IDLE} idle sandboxes: our memory, each", f"{each / 1e3:.0f} KB", "<= 1000 KB", each <= 1e6)
    yield Row(f"{_IDLE} idle sandboxes: more threads, in all", str(more), f"<= {_IDLE}", more <= _IDLE)
    yield compared("closing them, each", seconds(lambda: [box.close() for box in boxes]) / _IDLE)


def _resident() -> int:
    """Return how many bytes of memory this process has."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmRSS")
