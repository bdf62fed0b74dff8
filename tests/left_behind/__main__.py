"""``python -m tests.left_behind [TIMES] [WORD ...]``: end kernels and engines in every way, and count what is left."""

from __future__ import annotations

import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from scenarios import ALL


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    times = int(sys.argv[1]) if sys.argv[1:] else 20
    words = sys.argv[2:]
    failed = 0
    for scenario, place in ALL:
        if not all(word in f"{scenario.__name__} {place}" for word in words):
            continue
        clean, tried, seconds = 0, 0, 0.0
        for _ in range(times):
            begun = time.monotonic()
            try:
                found = scenario(place)
                tried += 1
            except Exception:  # noqa: BLE001 # one that could not be tried is not clean
                found = [traceback.format_exc()]
            seconds += time.monotonic() - begun
            clean += not found
            if found:
                say(f"  {scenario.__name__} {place}: {found[:4]}")
        failed += clean < times
        name = scenario.__name__.replace("_", " ")
        say(f"{name:46} {place:11} nothing left {clean:2} of {tried:2} tried  ({seconds / times:.1f} s each)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
