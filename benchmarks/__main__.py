"""Measure, and print a table: ``python -m benchmarks [GROUP ...]``. Is 1 if something is over its budget."""

from __future__ import annotations

import platform
import sys
import time

from benchmarks.by_hand import api, cpus
from benchmarks.commands import commands, interrupt, output
from benchmarks.embedded import embedded
from benchmarks.kernels import cells, killed
from benchmarks.measure import Row, time_limit
from benchmarks.spare import with_docker
from benchmarks.starts import cold_start, imports

# Each with its time limit in seconds: well above what it takes, and less than four minutes together.
GROUPS = {
    "commands": (commands, 25),
    "cells": (cells, 25),
    "start": (cold_start, 30),
    "spare": (with_docker, 45),
    "killed": (killed, 60),
    "output": (output, 20),
    "interrupt": (interrupt, 10),
    "imports": (imports, 8),
    "embedded": (embedded, 60),
}


def main(names: list[str]) -> int:
    if unknown := set(names) - set(GROUPS):
        print(f"unknown: {', '.join(sorted(unknown))}; there are: {', '.join(GROUPS)}", file=sys.stderr)
        return 2
    begin = time.monotonic()
    version = api().version()["Version"]
    print(f"Python {platform.python_version()}, Docker Engine {version}, {cpus():g} processors; medians\n")
    print(Row("what", "measured", "budget"))
    bad = False
    for name in names or GROUPS:
        measure, limit = GROUPS[name]
        try:
            with time_limit(limit):
                for row in measure():
                    print(row, flush=True)
                    bad |= row.ok is False
        except Exception as error:  # noqa: BLE001 # one group that fails must not hide the others
            print(Row(f"{name}: {error}"[:58], "unknown", "", False), flush=True)
            bad = True
    print(f"\n{time.monotonic() - begin:.0f} s in all")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
