"""What cells do and show in a real kernel with a real engine: output, variables, errors, options, the stop button."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator

import pytest
from kernels import Cell, Kernel, sandbox_kernel

from sandbox_magic.engines import find_engine
from sandbox_magic.jupyter.options import help_text
from sandbox_magic.spec import SandboxSpec


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One kernel for this module; every test leaves its default sandbox and its shell alive."""
    with sandbox_kernel(tmp_path_factory.mktemp("kernel")) as kernel:
        kernel.ok("%%sandbox\ntrue")
        yield kernel


def variables(kernel: Kernel) -> tuple[str, str]:
    """Return `_exit_code`, and the exit code in `_sandbox`."""
    return kernel.value("_exit_code"), kernel.value("_sandbox.exit_code")


def running(kernel: Kernel) -> set[str]:
    """Return the names of the kernel's sandboxes, as the engine has them."""
    return {found.labels["sandbox-magic.name"] for found in kernel.containers()}


def assert_short(cell: Cell, name: str) -> None:
    """The error is one text of at most three lines and holds nothing of our stack."""
    assert cell.status == "error"
    assert cell.error_name == name
    (content,) = cell.contents("error")
    assert len(content["traceback"]) == 1
    assert content["traceback"][0].count("\n") <= 2
    assert "Traceback" not in cell.error and "File" not in cell.error and ".py" not in cell.error
    assert cell.error.startswith(f"{name}: ")


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


# ---- options


def test_out_and_err_bind_instead_of_showing(kernel: Kernel) -> None:
    cell = kernel.ok("%%sandbox --out o --err e --result r\necho one; echo two >&2")
    assert cell.kinds() == set()
    assert kernel.value("o, e, r.exit_code, r is _sandbox") == repr(("one\n", "two\n", 0, True))
    cell = kernel.ok("%%sandbox -o o\necho three; echo shown >&2")
    assert cell.stdout + cell.stderr == "shown\n"
    assert kernel.value("o") == repr("three\n")


def test_err_shows_stdout_only_and_tee_shows_both(kernel: Kernel) -> None:
    assert kernel.ok("%%sandbox --err e\necho one; echo two >&2").stdout == "one\n"
    cell = kernel.ok("%%sandbox -o o --err e --tee\necho three; echo four >&2")
    assert (cell.stdout, cell.stderr) == ("three\n", "four\n")
    assert kernel.value("o, e") == repr(("three\n", "four\n"))


def test_out_is_bound_when_the_cell_fails(kernel: Kernel) -> None:
    kernel.ok("o = 'old'")
    assert kernel.run("%%sandbox -o o\necho partial; false").status == "error"
    assert kernel.value("o") == repr("partial\n")


def test_python_variables_become_environment(kernel: Kernel) -> None:
    kernel.ok('from pathlib import Path\ntext = "a b; $x \'\\"\\n*"; number = 3; yes = True; path = Path("/tmp/x y")')
    kernel.ok("listing = [1, 'zwei']")
    cell = kernel.ok(
        "%%sandbox -e text -e number -e yes -e path -e listing -e 'given=two words'\n"
        'printf "<%s>" "$text" "$number" "$yes" "$path" "$listing" "$given"'
    )
    assert cell.stdout == '<a b; $x \'"\n*><3><true></tmp/x y><[1, "zwei"]><two words>'
    missing = kernel.run("%%sandbox -e numbr\necho ran")
    assert_short(missing, "InvalidOptions")
    assert "did you mean number?" in missing.error and missing.stdout == ""


def test_stdin_is_empty_or_a_python_variable(kernel: Kernel) -> None:
    kernel.ok("given = 'from python\\n'")
    assert kernel.ok("%%sandbox\ncat; echo eof").stdout == "eof\n"
    assert kernel.ok("%%sandbox --stdin given\ncat; echo eof").stdout == "from python\neof\n"


def test_cwd(kernel: Kernel) -> None:
    assert kernel.ok("%%sandbox --cwd /usr/lib\npwd; cd /").stdout == "/usr/lib\n"
    wrong = kernel.run("%%sandbox --cwd /no/such\necho ran")
    assert_short(wrong, "InvalidOptions")
    assert "/no/such" in wrong.error and wrong.stdout == ""


def test_out_that_was_cut_is_said(kernel: Kernel) -> None:
    cell = kernel.ok("%%sandbox -o big\nhead -c 70000000 /dev/zero")
    assert cell.stdout.startswith("[66 MB were printed and only the first 64 MB are kept")
    assert kernel.value("len(big), _sandbox.truncated") == repr((64 << 20, True))


def test_quiet_shows_nothing_but_errors(kernel: Kernel) -> None:
    assert kernel.ok("%%sandbox -q\necho one; echo two >&2").kinds() == set()
    assert kernel.value("_sandbox.stdout, _sandbox.stderr") == repr(("one\n", "two\n"))
    assert kernel.run("%%sandbox -q\necho one; false").kinds() == {"error"}


@pytest.mark.parametrize("line", ["%%sandbox -h\necho ran", "%sandbox --help", "%%sbx -h\necho ran"])
def test_help_is_printed_and_nothing_runs(kernel: Kernel, line: str) -> None:
    assert kernel.ok(line).stdout == help_text()


def test_unknown_option_suggests(kernel: Kernel) -> None:
    cell = kernel.run("%%sandbox --tmeout 3\necho ran")
    assert_short(cell, "InvalidOptions")
    assert "unknown option --tmeout: did you mean --timeout?" in cell.error
    assert cell.stdout == ""


@pytest.mark.parametrize(
    "option", ["--image busybox:latest", "--memory 99m", "--user 1000", "--cpus 0.5", "--mount /usr/share/doc:/mnt"]
)
def test_another_shape_asked_for_later_names_the_way_out(kernel: Kernel, option: str) -> None:
    cell = kernel.run(f"%%sandbox {option}\necho ran")
    assert_short(cell, "InvalidOptions")
    assert "%sandboxctl reset" in cell.error and "--name" in cell.error
    assert cell.stdout == ""
    assert kernel.ok("%%sandbox --image debian:stable-slim\necho same").stdout == "same\n"


def test_line_magic_shows_its_output_once(kernel: Kernel) -> None:
    for code in ("r = %sandbox echo hi", "%sandbox echo hi", "%sandbox --timeout 5 -- echo hi"):
        cell = kernel.ok(code)
        assert cell.kinds() == {"stream"}
        assert cell.stdout == "hi\n"
    assert kernel.value("r.stdout, r.exit_code") == repr(("hi\n", 0))
    (later,) = kernel.ok("r").contents("execute_result")
    assert "exit_code=0" in later["data"]["text/plain"]


def test_line_magic_takes_the_rest_of_the_line_as_it_is(kernel: Kernel) -> None:
    cell = kernel.ok("""%sandbox printf '<%s>' "a  b" $((1+1)) {a} -n""")
    assert cell.stdout == "<a  b><2><{a}><-n>"


# ---- more than one sandbox, and their control


def test_two_names_are_two_sandboxes(kernel: Kernel) -> None:
    kernel.ok("%%sandbox\nwho=first; echo first >/tmp/who")
    kernel.ok("%%sandbox -n second --image busybox:latest\nwho=second; echo second >/tmp/who")
    assert kernel.ok("%%sandbox\necho $who $(cat /tmp/who)").stdout == "first first\n"
    assert kernel.ok("%%sandbox -n second\necho $who $(cat /tmp/who)").stdout == "second second\n"
    assert running(kernel) >= {"default", "second"}
    kernel.ok("%sandboxctl stop -n second")
    assert "default" in running(kernel) and "second" not in running(kernel)


def test_control_verbs(kernel: Kernel) -> None:
    assert "sandbox ctl has started" in kernel.ok("%sandboxctl start -n ctl --memory 256m").stdout
    assert kernel.ok("%sandboxctl start -n ctl").stdout == "sandbox ctl runs already\n"
    status = kernel.ok("%sandboxctl status -n ctl").stdout
    assert "ctl: started" in status and str(256 << 20) in status and "online" in status
    kernel.ok("%%sandbox -n ctl\nstate=1; echo inside >/tmp/inside")
    (kernel.folder / "given.txt").write_text("from the host")
    assert "copied given.txt to /tmp/" in kernel.ok("%sandboxctl put given.txt /tmp/ -n ctl").stdout
    assert kernel.ok("%%sandbox -n ctl\ncat /tmp/given.txt").stdout == "from the host"
    assert "copied to taken.txt" in kernel.ok("%sandboxctl get /tmp/inside taken.txt -n ctl").stdout
    assert (kernel.folder / "taken.txt").read_text() == "inside\n"
    assert kernel.ok("%sandboxctl reset -n ctl").stdout.startswith("sandbox ctl is a fresh one")
    assert kernel.ok('%%sandbox -n ctl\necho "<$state>" $(ls /tmp)').stdout == "<>\n"
    assert kernel.ok("%sandboxctl stop -n ctl").stdout == "sandbox ctl is closed\n"
    unknown = kernel.run("%sandboxctl status -n ctl")
    assert_short(unknown, "InvalidOptions")
    assert "no sandbox is named 'ctl'" in unknown.error


def test_control_network_switches_the_sandbox(kernel: Kernel) -> None:
    devices = "%%sandbox\nls /sys/class/net | grep -vcx lo"
    count = [
        kernel.run(devices).stdout,
        kernel.ok(devices.replace("\n", " --network\n")).stdout,
        kernel.run(devices).stdout,
    ]
    assert "is offline" in kernel.ok("%sandboxctl network").stdout
    assert "sandbox default is online" in kernel.ok("%sandboxctl network on").stdout
    count.append(kernel.run(devices).stdout)
    assert "is offline" in kernel.ok("%sandboxctl network off").stdout
    count.append(kernel.run(devices).stdout)
    assert count == ["0\n", "1\n", "0\n", "1\n", "0\n"]


def test_control_network_by_name(kernel: Kernel) -> None:
    """What was refused is said with the failed cell, and stands in the log."""
    ask = "use IO::Socket::INET; $s = IO::Socket::INET->new(substr($ENV{http_proxy}, 7)) or exit 9; print $s "
    ask += "qq(CONNECT b.example:443 HTTP/1.1\\r\\nHost: b.example\\r\\n\\r\\n); print scalar <$s>; exit 7"
    failed = kernel.run(f"%%sandbox -n named --network a.example\nperl -e '{ask}'")
    assert "HTTP/1.1 403" in failed.stdout
    for said in ("exit status 7", "refused: b.example:443: it is not among the names", "--network=NAME"):
        assert said in failed.error
    told = kernel.ok("%sandboxctl network allow a.example, c.example:8443 -n named").stdout
    assert told == "sandbox named is offline, and reaches by name: a.example, c.example:8443\n"
    assert kernel.ok("%sandboxctl network -n named").stdout == told
    assert "a.example, c.example:8443" in kernel.ok("%sandboxctl status -n named").stdout
    log = kernel.ok("%sandboxctl network log -n named").stdout
    assert "refused" in log and "b.example:443" in log
    kernel.ok("%sandboxctl network deny a.example -n named")
    kernel.ok("%sandboxctl stop -n named")
    assert_short(kernel.run("%sandboxctl network allow 10.0.0.1"), "InvalidOptions")


def test_control_without_a_sandbox(kernel: Kernel) -> None:
    doctor = kernel.ok("%sandboxctl doctor").stdout
    assert "\ndocker: works\n" in doctor and "  limit on memory: enforced (" in doctor
    assert "  limit on memory: unknown (not tried)\n" in kernel.ok("%sandboxctl doctor --quick").stdout
    assert "what dead kernels left behind" in kernel.ok("%sandboxctl help").stdout
    assert kernel.ok("%sandboxctl gc").stdout != ""
    assert "timeout" in kernel.ok("%sandboxctl config").stdout
    wrong = kernel.run("%sandboxctl stats")
    assert_short(wrong, "InvalidOptions")
    assert "did you mean status?" in wrong.error


# ---- the stop button


def test_stop_button_keeps_the_shell_and_aborts_what_is_queued(kernel: Kernel) -> None:
    kernel.ok("%%sandbox\nkept=variable; f() { echo function; }; cd /tmp")
    cell = kernel.send("%%sandbox\necho begun; sleep 100; echo not this")
    queued = kernel.send("%%sandbox\necho queued >/tmp/queued")
    kernel.wait_for(cell, "begun")
    begin = time.monotonic()
    kernel.interrupt()
    kernel.wait(cell)
    assert time.monotonic() - begin < 10
    assert_short(cell, "KeyboardInterrupt")
    assert "the command was stopped (SIGINT)" in cell.error
    assert cell.stdout.strip() == "begun"
    assert kernel.wait(queued).status == "aborted"
    assert variables(kernel) == ("130", "130")
    assert kernel.value("_sandbox.interrupted") == "True"
    assert kernel.ok("%%sandbox\necho $kept $(f) $PWD; ls queued 2>&1; cd /").stdout.startswith(
        "variable function /tmp\n"
    )
    assert kernel.run("%%sandbox\ncat /tmp/queued").status == "error"


def test_stop_button_in_a_flood(kernel: Kernel) -> None:
    cell = kernel.send("%%sandbox\nyes")
    kernel.wait_for(cell, "more so far")
    begin = time.monotonic()
    kernel.interrupt()
    kernel.wait(cell)
    assert time.monotonic() - begin < 10
    assert_short(cell, "KeyboardInterrupt")
    assert kernel.ok("%%sandbox\necho clean").stdout == "clean\n"


def test_stop_button_ends_what_ignores_it(kernel: Kernel) -> None:
    kernel.ok("%%sandbox\nexport exported=yes")
    cell = kernel.send("%%sandbox\ntrap '' INT; echo begun; while :; do :; done")
    kernel.wait_for(cell, "begun")
    begin = time.monotonic()
    kernel.interrupt()
    kernel.wait(cell)
    assert time.monotonic() - begin < 6
    assert_short(cell, "KeyboardInterrupt")
    assert kernel.value("_exit_code") != "0"
    assert kernel.ok("%%sandbox\ntrap - INT; echo $exported").stdout == "yes\n"


def test_stop_button_again_goes_further_at_once(kernel: Kernel) -> None:
    cell = kernel.send("%%sandbox\ntrap '' INT TERM; echo begun; while :; do :; done")
    kernel.wait_for(cell, "begun")
    begin = time.monotonic()
    for _ in range(4):
        kernel.interrupt()
        time.sleep(0.1)  # two at the same moment are one signal
    kernel.wait(cell)
    assert time.monotonic() - begin < 2
    assert_short(cell, "KeyboardInterrupt")
    assert kernel.ok("%%sandbox\necho usable").stdout == "usable\n"
