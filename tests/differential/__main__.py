"""``python -m tests.differential COUNT [SEED [SHELL [ENGINE [IMAGE]]]]``: try so many, print a summary."""

from __future__ import annotations

import sys

from sandbox_magic import Sandbox

from . import compare


def main() -> int:
    """Try as many as asked."""
    count, seed, shell, engine, image, *_ = [
        *sys.argv[1:],
        *("100", "0", "bash", "bubblewrap", None)[len(sys.argv) - 1 :],
    ]
    with Sandbox(image, engine=engine, shell=shell) as box:
        report = compare(box, range(int(seed), int(seed) + int(count)), shell)
    sys.stdout.write(f"{report}\n")
    return 1 if report.unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
