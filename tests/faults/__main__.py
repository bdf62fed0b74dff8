"""``python -m tests.faults COUNT [SEED [ENGINE [SHELL [IMAGE]]]]``: try so many, print what is wrong."""

from __future__ import annotations

import faulthandler
import sys

from sandbox_magic import Sandbox

from . import run


def main() -> int:
    """Try as many as asked."""
    defaults = ("300", "0", "bubblewrap", "bash", "")
    count, seed, engine, shell, image = [*sys.argv[1:], *defaults[len(sys.argv) - 1 :]]
    faulthandler.dump_traceback_later(60 + 10 * int(count), exit=True)
    with Sandbox(image or None, engine=engine, shell=shell) as box:
        box.run("true")
        assert box._machine is not None
        report = run(box._machine, range(int(seed), int(seed) + int(count)), shell)
    sys.stdout.write(f"{report}\n")
    return 1 if report.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
