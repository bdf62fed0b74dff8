"""Programs in a real kernel: in the background, on a terminal, reading what the user types."""

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
    html = until_shown(kernel, cell, "[job job: running]\n<b>")
    assert "&lt;b&gt;" in html and "<b>" not in html
    assert kernel.ok("%%sandbox\necho other").stdout == "other\n"
    listed = kernel.ok("%sandboxctl jobs").stdout
    assert "default  job  running" in listed
    assert kernel.ok("%sandboxctl logs job").stdout == "<b>\n"
    kernel.ok("%%sandbox\n: >/tmp/go")
    until_shown(kernel, cell, "[job job: exit status 3 (")
    assert kernel.value("(job.wait(9).exit_code, out, err, res is job.result)") == r"(3, '<b>\n', 'e\n', True)"
    assert "exit status 3" in kernel.ok("%sandboxctl jobs").stdout
    assert cell.kinds() == {"display_data", "update_display_data"}


def test_background_cells_can_be_stopped(kernel: Kernel) -> None:
    cell = kernel.ok("%%sandbox --bg --proc server\nfor i in $(seq 30); do echo line $i; done; sleep 5000")
    until_shown(kernel, cell, "line 30")
    assert "stopped (SIGINT)" in kernel.ok("%sandboxctl jobs stop server").stdout
    html = until_shown(kernel, cell, "[job server: stopped (SIGINT)")
    assert "line 30\n" in html and "line 20\n" not in html
    assert "no job is named 'nobody'" in kernel.run("%sandboxctl logs nobody").error
    assert kernel.ok("job = %sandbox --bg echo one line\nprint(job.wait(9).output)").stdout == "one line\n\n"


def test_a_cell_on_a_terminal(kernel: Kernel) -> None:
    cell = kernel.ok(
        "%%sandbox -t\nmkdir /tmp/blue; cd /tmp; export SEEN=1; ls --color=auto -d blue; stty size </dev/tty"
    )
    assert "\x1b[01;34mblue\x1b[0m\n24 100\n" in cell.stdout
    assert kernel.ok("%%sandbox\npwd; echo $SEEN $TERM; cd").stdout == "/tmp\n1 dumb\n"
    failed = kernel.run("%%sandbox --tty\n[ -t 1 ] && exit 7")
    assert failed.error_name == "CommandFailed"
    assert kernel.value("_exit_code") == "7"


def answer(kernel: Kernel, text: str) -> tuple[str, bool]:
    """Answer the kernel's question; return its prompt, and whether what is typed is hidden."""
    content = kernel.client.get_stdin_msg(timeout=SECONDS)["content"]
    kernel.client.input(text)
    return content["prompt"], content["password"]


def test_an_interactive_cell_asks_when_the_program_waits(kernel: Kernel) -> None:
    cell = kernel.send(
        "%%sandbox -i\nprintf 'Name? '; read n; printf 'Password: '; read p; echo \"<$n|$p>\"; cat; echo end"
    )
    assert answer(kernel, "Ada L") == ("", False)
    assert answer(kernel, "s3cret") == ("", True)
    assert answer(kernel, "more") == ("", False)
    assert answer(kernel, "^D") == ("", False)
    kernel.wait(cell)
    assert cell.stdout == "Name? Password: <Ada L|s3cret>\nmore\nend\n"
    assert cell.status == "ok"


def test_a_program_asks_at_its_terminal(kernel: Kernel) -> None:
    code = "read -p 'Password of your cat? ' n; read -s -p 'PW: ' p </dev/tty; echo; echo \"<$n|$p>\"; cat; cat"
    cell = kernel.send("%%sandbox -t -i\n" + code)
    assert answer(kernel, "Ada L") == ("", False)
    assert answer(kernel, "s3cret") == ("", True)
    assert answer(kernel, "more") == ("", False)
    assert answer(kernel, "^D") == ("", False)
    kernel.wait(cell)
    assert cell.stdout == "Password of your cat? PW: \n<Ada L|s3cret>\nmore\n"
    assert cell.status == "ok"


def test_a_question_at_a_terminal_can_be_interrupted(kernel: Kernel) -> None:
    cell = kernel.send("%%sandbox -t -i\nread x; echo never")
    kernel.client.get_stdin_msg(timeout=SECONDS)
    kernel.interrupt()
    kernel.wait(cell)
    assert cell.error_name == "KeyboardInterrupt"
    assert "never" not in cell.stdout


def test_a_question_can_be_interrupted(kernel: Kernel) -> None:
    kernel.ok("%%sandbox\nkept=alive")
    cell = kernel.send("%%sandbox -i\nread x; echo never")
    kernel.client.get_stdin_msg(timeout=SECONDS)
    kernel.interrupt()
    kernel.wait(cell)
    assert cell.error_name == "KeyboardInterrupt"
    assert kernel.ok("%%sandbox\necho $kept").stdout == "alive\n"


def test_where_nobody_can_be_asked_the_input_ends(kernel: Kernel) -> None:
    kernel.client.allow_stdin = False
    try:
        cell = kernel.ok("%%sandbox -i\nread x || echo end")
    finally:
        kernel.client.allow_stdin = True
    line = "[the cell waited for input, and nobody can be asked here: its input has ended]\n"
    assert cell.stdout == line + "end\n"
    kernel.client.allow_stdin = False
    try:
        cell = kernel.ok("%%sandbox -t -i\nread x || read y || echo end; stty -echo; read z || echo still")
    finally:
        kernel.client.allow_stdin = True
    assert cell.stdout == line + "end\nstill\n"


def test_stdin_from_an_iterator(kernel: Kernel) -> None:
    kernel.ok("lines = (f'{n}\\n' for n in range(100000))")
    assert kernel.ok("%%sandbox --stdin lines\ntail -n 1").stdout == "99999\n"
    wrong = kernel.run("number = 1\nget_ipython().run_cell_magic('sandbox', '--stdin number', 'cat')")
    assert "needs str, bytes, a file or an iterator" in wrong.error
