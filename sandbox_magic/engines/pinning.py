"""A limit of processors where no control group can be made: a sandbox is given some of them and can take no others.

The call by which it could is refused there: see `seccomp.program`.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
from collections.abc import Sequence


def pin(processes: Sequence[int], cpus: float) -> None:
    """Give processes, and what they will start, so many of the processors that we may use, rounded up."""
    mine = sorted(os.sched_getaffinity(0))
    chosen = random.sample(mine, min(len(mine), math.ceil(cpus)))
    for process in processes:
        with contextlib.suppress(ProcessLookupError):  # it has ended already, and says why itself
            os.sched_setaffinity(process, chosen)


def missing(process: int, cpus: float) -> tuple[str, ...]:
    """Return what does not hold for a process."""
    count = len(os.sched_getaffinity(process))
    return () if count <= cpus else (f"processors ({count} instead of {cpus:g}: no control group can be made here)",)
