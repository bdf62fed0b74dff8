"""From nothing to the first result, and what loading costs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Protocol

from benchmarks.by_hand import RawContainer
from benchmarks.measure import Rows, at_most, compared, limited, medians, seconds
from sandbox_magic import Sandbox, SandboxSpec

_LOAD = """
import time
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell()
begin = time.perf_counter()
shell.run_line_magic("load_ext", "sandbox_magic")
print(time.perf_counter() - begin)
"""


class _Closable(Protocol):
    def close(self) -> None: ...


def cold_start() -> Rows:
    def ours() -> Sandbox:
        box = Sandbox()
        box.run("true", check=True)
        return box

    def timed(start: Callable[[], _Closable]) -> float:
        made: list[_Closable] = []
        took = seconds(lambda: made.append(start()))
        made[0].close()
        return took

    spec = SandboxSpec()
    ours().close()
    RawContainer(spec, "bash").close()
    found = medians(15, {"ours": lambda: timed(ours), "hand": lambda: timed(lambda: RawContainer(spec, "bash"))})
    yield compared("create, attach, start, exec, one line: by hand", found["hand"])
    yield compared('Sandbox().run("true"), image present', found["ours"])
    yield at_most("  against by hand", found["ours"] / found["hand"], 1.15)


def imports() -> Rows:
    def python(code: str) -> float:
        return seconds(lambda: subprocess.run([sys.executable, "-c", code], check=True))

    found = medians(15, {"python": lambda: python("pass"), "ours": lambda: python("import sandbox_magic")})
    yield limited("import sandbox_magic, more than Python alone", found["ours"] - found["python"], 0.03)

    def load() -> float:
        done = subprocess.run([sys.executable, "-c", _LOAD], check=True, capture_output=True, text=True)
        return float(done.stdout.split()[-1])

    yield limited("%load_ext sandbox_magic, more than IPython alone", medians(7, {"load": load})["load"], 0.08)
