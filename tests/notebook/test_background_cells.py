"""Background cells in a real kernel: the cell goes on, its tail is live, its variables come."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from kernels import Cell, Kernel, sandbox_kernel

SECONDS = 30


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with sandbox_kernel(tmp_path_factory.mktemp("kernel")) as kernel:
        kernel.ok("%%sandbox\ntrue")
        yield kernel


def until_shown(kernel: Kernel, cell: Cell, text: str) -> str:
    """Wait until the display below a cell shows this; other cells run meanwhile, else no message is read."""
    deadline = time.monotonic() + SECONDS
    while True:
        shown = [content["data"] for kind in ("display_data", "update_display_data") for content in cell.contents(kind)]
        if shown and text in shown[-1]["text/plain"]:
            return str(shown[-1]["text/html"])
        assert time.monotonic() < deadline, cell
        kernel.ok("__import__('time').sleep(0.1)")


def test_a_background_cell_is_live_below_itself(kernel: Kernel) -> None:
    wait = "until [ -e /tmp/go ]; do sleep 0.1; done"
    cell = kernel.ok(
        f"%%sandbox --bg --proc job --out out --err err --result res\necho '<b>'; {wait}; echo e >&2; exit 3"
    )
    assert kernel.value("(job.running, out, err, res, _exit_code)") == "(True, None, None, None, None)"
    html = until_shown(kernel, cell, "[job job is running]\n<b>")
    assert "&lt;b&gt;" in html and "<b>" not in html
    assert kernel.ok("%%sandbox\necho other").stdout == "other\n"
    listed = kernel.ok("%sandboxctl jobs").stdout
    assert "default  job  running" in listed
    assert kernel.ok("%sandboxctl logs job").stdout == "<b>\n"
    kernel.ok("%%sandbox\n: >/tmp/go")
    until_shown(kernel, cell, "[job job ended with exit status 3 (")
    assert kernel.value("(job.wait(9).exit_code, out, err, res is job.result)") == r"(3, '<b>\n', 'e\n', True)"
    assert "exit status 3" in kernel.ok("%sandboxctl jobs").stdout
    assert cell.kinds() == {"display_data", "update_display_data"}


def test_background_cells_can_be_stopped(kernel: Kernel) -> None:
    cell = kernel.ok("%%sandbox --bg --proc server\nfor i in $(seq 30); do echo line $i; done; sleep 5000")
    until_shown(kernel, cell, "line 30")
    assert "exit status 130" in kernel.ok("%sandboxctl jobs stop server").stdout
    html = until_shown(kernel, cell, "[job server was stopped (SIGINT)")
    assert "line 30\n" in html and "line 20\n" not in html
    assert "no job is named 'nobody'" in kernel.run("%sandboxctl logs nobody").error
    assert kernel.ok("job = %sandbox --bg echo one line\nprint(job.wait(9).output)").stdout == "one line\n\n"
