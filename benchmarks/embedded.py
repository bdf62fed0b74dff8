"""The embedded engine: bubblewrap."""

from __future__ import annotations

import gc
import threading
from functools import partial
from pathlib import Path

from benchmarks.measure import Row, Rows, at_least, compared, limited, medians, seconds
from benchmarks.spare import starts
from sandbox_magic import Sandbox

_IDLE = 100
_GIGABYTE = 1_000_000_000


def embedded() -> Rows:
    yield from starts("bubblewrap", start=0.02, reset=0.02)
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
