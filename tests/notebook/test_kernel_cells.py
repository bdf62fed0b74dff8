"""What cells do and show in a real kernel with a real engine: output, variables, errors."""

from __future__ import annotations

import base64
import time

import pytest
from kernels import Kernel, assert_short, running, variables

from sandbox_magic.engines import find_engine
from sandbox_magic.spec import SandboxSpec

# ---- the extension


def test_reload_and_unload_keep_the_live_sandbox(kernel: Kernel) -> None:
    kernel.ok("%%sandbox\nkept=alive; cd /tmp")
    kernel.ok("%reload_ext sandbox_magic")
    assert kernel.ok("%%sandbox\necho $kept $PWD; cd").stdout == "alive /tmp\n"
    kernel.ok("%unload_ext sandbox_magic")
    gone = kernel.run("%%sandbox\necho $kept")
    assert gone.stdout == "" and "%%sandbox" in gone.stderr + gone.error and "not found" in gone.stderr + gone.error
    kernel.ok("%load_ext sandbox_magic")
    assert kernel.ok("%%sandbox\necho $kept").stdout == "alive\n"
    assert running(kernel) == {"default"}


def test_state_stays_between_cells(kernel: Kernel) -> None:
    kernel.ok("%%sandbox\nmkdir -p /tmp/here && cd /tmp/here\nplain=1; export out=2; f() { echo f:$1; }; echo x >file")
    assert kernel.ok("%%sandbox\npwd; echo $plain $(sh -c 'echo $out'); f y; cat file; cd /").stdout == (
        "/tmp/here\n1 2\nf:y\nx\n"
    )


# ---- output


def test_output_is_shown_while_the_cell_runs(kernel: Kernel) -> None:
    cell = kernel.ok("%%sandbox\nprintf first; sleep 1; echo second")
    assert cell.stdout == "firstsecond\n"
    assert cell.seconds_from("first") > 0.8
    assert cell.seconds_from("second") < 0.5


def test_stderr_is_merged_in_order_of_arrival(kernel: Kernel) -> None:
    cell = kernel.ok("%%sandbox\nfor i in 1 2 3; do echo out$i; sleep 0.05; echo err$i >&2; sleep 0.05; done")
    assert cell.stdout == "out1\nerr1\nout2\nerr2\nout3\nerr3\n"
    assert cell.stderr == ""
    assert kernel.value("_sandbox.stderr") == repr("err1\nerr2\nerr3\n")


def test_progress_with_carriage_returns_is_live(kernel: Kernel) -> None:
    cell = kernel.ok("%%sandbox\nfor i in 10 20 30; do printf '%s%%\\r' $i; sleep 0.3; done; echo done")
    assert cell.stdout == "10%\r20%\r30%\rdone\n"
    assert cell.seconds_from("10%") > 0.7
    assert cell.seconds_from("20%") > 0.4


def test_sandbox_text_becomes_streams_and_nothing_else(kernel: Kernel) -> None:
    attack = (
        "<script>alert(1)</script><img src=x onerror=alert(1)>\n"
        "\x1b]0;title\x07\x1b]8;;http://x/\x07link\x1b]8;;\x07\x1b[2J\x1b[10A\x1b[?1049h\x1bPq#0\x1b\\\x00\x07\n"
        '{"text/html": "<b>x</b>"}\n\x1b[31mred\x1b[0m\n'
    )
    code = base64.b64encode(attack.encode()).decode()
    cell = kernel.ok(f"%%sandbox\necho {code} | base64 -d")
    assert cell.kinds() == {"stream"}
    assert cell.stdout == (
        '<script>alert(1)</script><img src=x onerror=alert(1)>\nlink\n{"text/html": "<b>x</b>"}\n\x1b[31mred\x1b[0m\n'
    )
    assert kernel.value(f"_sandbox.stdout_bytes == __import__('base64').b64decode({code!r})") == "True"


def test_an_attack_in_an_error_or_a_display_is_escaped(kernel: Kernel) -> None:
    cell = kernel.run("%%sandbox\necho '<script>alert(1)</script>'; exit_with() { return 3; }; exit_with")
    assert cell.kinds() == {"stream", "error"}
    assert "script" not in cell.error
    (shown,) = kernel.ok("_sandbox").contents("execute_result")
    assert "<script" not in shown["data"]["text/html"]
    assert set(shown["data"]) == {"text/plain", "text/html"}


def test_the_body_is_not_touched(kernel: Kernel) -> None:
    kernel.ok("x = 'python'; a = 'python'")
    body = "x=shell\necho \"$x ${x} {a} {x} %d !ls ?\" %time !true\necho '%%sandbox' $((1 + 1)) \\\n  joined?\n"
    assert kernel.ok("%%sandbox\n" + body).stdout == ("shell shell {a} {x} %d !ls ? %time !true\n%%sandbox 2 joined?\n")


def test_a_flood_is_few_messages_and_nothing_is_lost(kernel: Kernel) -> None:
    begin = time.monotonic()
    cell = kernel.ok("%%sandbox\nseq -f 'line %012.0f of a long listing' 0 624999", timeout=60)
    seconds = time.monotonic() - begin
    streams = cell.contents("stream")
    assert len(streams) <= 10 * seconds + 2
    shown = sum(len(content["text"]) for content in streams)
    assert cell.stdout.count("\n") > 10_000
    assert shown < 1_200_000
    assert "not shown here; all of it: _sandbox.stdout" in cell.stdout
    assert cell.stdout.startswith("line 000000000000 of") and cell.stdout.endswith(
        "line 000000624999 of a long listing\n"
    )
    whole = "''.join(f'line {i:012} of a long listing\\n' for i in range(625_000))"
    assert kernel.value(f"_sandbox.stdout == {whole}") == "True"
    assert kernel.value("_sandbox.truncated") == "False"


def test_late_output_is_announced_and_belongs_to_no_cell(kernel: Kernel) -> None:
    kernel.ok("%%sandbox\n(sleep 0.3; echo late) &")
    kernel.ok("import time; time.sleep(0.7)")
    cell = kernel.ok("%%sandbox -o own --tee\necho now")
    assert cell.stdout == "[printed by a background job of: (sleep 0.3; echo late) &]\nlate\n[this cell]\nnow\n"
    assert kernel.value("own") == repr("now\n")


def test_late_output_is_shown_while_another_cell_runs_and_is_not_its_own(kernel: Kernel) -> None:
    job = "(sleep 1; echo late; >/tmp/late) & # a job"
    kernel.ok(f"%%sandbox\n{job}\necho started")
    cell = kernel.ok("%%sandbox -o own --tee\nuntil [ -e /tmp/late ]; do sleep 0.1; done; sleep 1; echo x; printf y")
    shown = f"[printed by a background job of: {job}]\nlate\n"
    assert shown in cell.stdout
    assert cell.stdout.replace(shown, "").replace("[this cell]\n", "").rstrip("\n") == "x\ny"
    assert kernel.value("own") == repr("x\ny")


def test_capture_above_the_cell_takes_its_output(kernel: Kernel) -> None:
    cell = kernel.ok("%%capture taken\n%%sandbox\necho captured")
    assert cell.kinds() == set()
    assert kernel.value("taken.stdout") == repr("captured\n")


# ---- variables and errors


def test_success_sets_the_variables(kernel: Kernel) -> None:
    kernel.ok("_exit_code = _sandbox = None")
    kernel.ok("%%sandbox\ntrue")
    assert variables(kernel) == ("0", "0")


def test_failure_sets_the_variables_and_shows_one_short_error(kernel: Kernel) -> None:
    cell = kernel.run("%%sandbox\necho before; no-such-command")
    assert cell.stdout.startswith("before\n")
    assert_short(cell, "CommandFailed")
    assert (
        cell.error
        == "CommandFailed: exit status 127: command not found: is it installed in the sandbox, is PATH right?"
    )
    assert variables(kernel) == ("127", "127")
    assert kernel.value("_sandbox.stdout") == repr("before\n")


def test_failure_stops_the_cells_behind_it(kernel: Kernel) -> None:
    failing = kernel.send("%%sandbox\nsleep 0.3; false")
    queued = [kernel.send("%%sandbox\necho ran >/tmp/ran"), kernel.send("ran = True")]
    assert kernel.wait(failing).status == "error"
    assert [kernel.wait(cell).status for cell in queued] == ["aborted", "aborted"]
    assert kernel.run("%%sandbox\ncat /tmp/ran").status == "error"
    assert kernel.value("'ran' in globals()") == "False"


def test_failure_can_be_caught_as_that_of_subprocess(kernel: Kernel) -> None:
    cell = kernel.ok(
        "import subprocess\ntry:\n    %sandbox echo said; (exit 4)\n"
        "except subprocess.CalledProcessError as error:\n    print(error.returncode, repr(error.stdout))"
    )
    assert cell.stdout == "said\n4 'said\\n'\n"


def test_no_raise_error_lets_the_next_cells_run(kernel: Kernel) -> None:
    first, second = kernel.send("%%sandbox --no-raise-error\n(exit 3)"), kernel.send("went_on = _exit_code")
    assert kernel.wait(first).status == kernel.wait(second).status == "ok"
    assert first.kinds() == set()
    assert kernel.value("went_on") == "3"
    kernel.ok("%config SandboxMagics.raise_error = False")
    kernel.ok("%%sandbox\n(exit 5)")
    kernel.ok("%config SandboxMagics.raise_error = True")
    assert variables(kernel) == ("5", "5")


def test_timeout_sets_the_variables_and_keeps_the_shell(kernel: Kernel) -> None:
    kernel.ok("%%sandbox\nkept=yes")
    begin = time.monotonic()
    cell = kernel.run("%%sandbox --timeout 0.5\necho begun; sleep 100")
    assert time.monotonic() - begin < 10
    assert cell.stdout.strip() == "begun"  # bash adds an empty line to stderr when SIGINT ends what it waits for
    assert_short(cell, "CommandTimeout")
    assert "within 0.5 s" in cell.error
    assert variables(kernel) == ("130", "130")
    assert kernel.value("_sandbox.timed_out, _sandbox.stdout") == repr((True, "begun\n"))
    assert kernel.ok("%%sandbox\necho $kept").stdout == "yes\n"


@pytest.mark.parametrize(("code", "status"), [("exit 7", 7), ("exec sh -c 'exit 8'", 8), ("kill -9 $$", 137)])
def test_shell_end_sets_the_true_exit_code_and_restores(kernel: Kernel, code: str, status: int) -> None:
    kernel.ok("%%sandbox\ncd /tmp; export exported=yes; echo file >/tmp/stays")
    cell = kernel.run(f"%%sandbox\n{code}")
    assert_short(cell, "CommandFailed")
    assert f"exit status {status}" in cell.error
    assert "the shell ended with this cell" in cell.error
    assert variables(kernel) == (str(status), str(status))
    assert kernel.value("_sandbox.shell_ended") == "True"
    assert kernel.ok("%%sandbox\necho $PWD $exported $(cat /tmp/stays); cd /").stdout == "/tmp yes file\n"


def test_engine_error_leaves_the_exit_code_unknown(kernel: Kernel) -> None:
    kernel.ok("%%sandbox\ntrue")
    cell = kernel.run("%%sandbox -n missing --image localhost:1/sandbox-magic/none:latest\necho never")
    assert_short(cell, "ImageNotFound")
    assert "localhost:1/sandbox-magic/none:latest" in cell.error
    assert cell.stdout == ""
    assert kernel.value("_exit_code") == "None"
    assert kernel.ok("%%sandbox -n missing\necho works").stdout == "works\n"  # the misspelt image is forgotten
    kernel.ok("%sandboxctl stop -n missing")


def test_sandbox_that_the_engine_ends_in_a_cell(kernel: Kernel) -> None:
    kernel.ok("%%sandbox -n doomed\ntrue")
    (ident,) = [found.id for found in kernel.containers() if found.labels["sandbox-magic.name"] == "doomed"]
    cell = kernel.send("%%sandbox -n doomed\necho begun; sleep 100")
    kernel.wait_for(cell, "begun")
    find_engine(SandboxSpec()).remove(ident)
    assert_short(kernel.wait(cell), "CommandFailed")
    assert "exit status unknown" in cell.error and "the sandbox itself has ended" in cell.error
    assert variables(kernel) == ("None", "None")
    assert kernel.ok("%%sandbox -n doomed\necho again").stdout.startswith("again\n")
    kernel.ok("%sandboxctl stop -n doomed")
