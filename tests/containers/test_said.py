"""What is said where something went another way than the user meant: true, at once, and with what to do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_magic import CommandFailed, InvalidOptions, Sandbox, SessionError, ShellExited, TransferError
from sandbox_magic.testing.host import until

PLACES: dict[str, dict[str, Any]] = {
    "docker-busybox": {"engine": "docker", "image": "busybox:latest"},
    "bubblewrap-bash": {"engine": "bubblewrap"},
    "bubblewrap-zsh": {"engine": "bubblewrap", "shell": "zsh"},
}
# Takes every process that becomes free.
FILL = "while (1) { $p = fork(); if (defined $p && !$p) { sleep 1000; exit } select(undef, undef, undef, 0.01) }"


@pytest.fixture(scope="module", params=PLACES.values(), ids=PLACES.keys())
def box(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with Sandbox(**request.param, pids=100) as made:
        yield made


def test_a_stream_that_was_led_elsewhere(box: Sandbox) -> None:
    """The next cell shows nothing, so this one says it, and how it is mended."""
    (note,) = box.run("exec >/tmp/log 2>/dev/null").notes
    assert note.startswith("later cells show no stdout and stderr either")
    assert box.run("echo not shown").output == ""
    mend = note.split("`")[1]
    (note,) = box.run(f"{mend.partition(' 2>')[0]}; echo out; echo lost >&2").notes
    assert note.startswith("later cells show no stderr either")
    assert box.run(note.split("`")[1]).notes == ()
    result = box.run("echo out; sleep 0.3; echo err >&2; cat /tmp/log")
    assert (result.stdout, result.stderr) == ("out\nnot shown\n", "err\n")


def test_exec_that_leads_nothing_elsewhere(box: Sandbox) -> None:
    assert box.run("exec 3</dev/null; (exec sh -c 'exec >/tmp/log; echo x'); false").notes == ()
    assert box.run("echo $?; exec 3<&-").stdout == "1\n"


def test_a_syntax_error_names_the_line_of_the_cell(box: Sandbox) -> None:
    for before in (
        "",
        "trap : DEBUG ERR 2>/dev/null || trap : DEBUG 2>/dev/null; set -x\n",
        "set +x; trap - DEBUG ERR\n",
    ):
        cell = f"{before}echo begun\n\n)\n"
        line = cell.count("\n")
        assert f"line {line}:" in (said := box.run(cell).stderr) or f":{line}:" in said
    box.run("set +x; trap - DEBUG ERR; true")


def test_a_signal_is_not_called_the_memory_limit(box: Sandbox) -> None:
    with pytest.raises(CommandFailed) as error:
        box.run("kill -9 $$", check=True)
    assert str(error.value) == "exit status 137: killed (SIGKILL)"
    assert not any("memory" in note for note in error.value.result.notes)


def test_an_argument_that_is_too_long(box: Sandbox) -> None:
    with pytest.raises(CommandFailed, match="no argument and no variable of 128 KiB"):
        box.run("x=x; for n in 1 2 3 4 5 6 7 8 9; do x=$x$x$x$x; done; /bin/ls $x", check=True)
    with pytest.raises(InvalidOptions, match=r"X has 131074 bytes.*--stdin"):
        box.run("true", env={"X": "x" * (128 << 10)})
    assert box.run("[ ${#X} = 131069 ] && /bin/ls / >/dev/null; unset X", env={"X": "x" * 131069}).exit_code == 0


def test_output_that_is_not_kept(box: Sandbox) -> None:
    result = box.run("head -c 70000000 /dev/zero")
    assert result.truncated
    assert "66 MB were printed and only the first 64 MB are kept" in result.notes[-1]
    assert "%sandboxctl get" in result.notes[-1]


def test_a_refused_run_costs_nothing(box: Sandbox, tmp_path: Path) -> None:
    """The shell goes on as it was, and what jobs print is read."""
    box.run("kept=alive; (while [ ! -e /tmp/go ]; do sleep 0.1; done; echo late) &")
    for refused in ({"code": "echo \0"}, {"code": "true", "cwd": "/no/such"}, {"code": "true", "timeout": -1}):
        with pytest.raises(InvalidOptions):
            box.run(**refused)
    (tmp_path / "go").touch()
    box.put(tmp_path / "go", "/tmp/")
    until("late output is not kept", lambda: any(b"late" in output.data for output in box.late_output()))
    assert box.run("echo $kept").stdout == "alive\n"


def test_files_without_a_target_and_files_that_are_not_there(box: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "here").write_text("content")
    box.put(tmp_path / "here")
    assert box.run("cat /work/here").stdout == "content"
    for asked, said in (
        ("nofile", "there is no nofile in /work of the sandbox"),
        ("/etc/nofile", "there is no nofile in /etc of the sandbox"),
        ("/no/such/nofile", "there is no folder /no/such in the sandbox"),
    ):
        with pytest.raises(TransferError, match=said):
            box.get(asked, tmp_path)


def test_no_room_for_stdin() -> None:
    """It was cut without a word: the cell ran with what had found room."""
    with Sandbox(engine="bubblewrap") as box:
        box.run("kept=alive; head -c 2000000000 /dev/zero >/dev/shm/full; true")
        with pytest.raises(SessionError, match="no room for its stdin"):
            box.run("wc -c", stdin="x" * 60_000)
        assert box.run("echo $kept; rm /dev/shm/full").stdout == "alive\n"
        assert box.run("wc -c", stdin="x" * 60_000).stdout.split() == ["60000"]


def test_no_process_for_a_new_shell() -> None:
    """It was asked whether the image had an sh."""
    with Sandbox(engine="docker", pids=40) as box:
        box.run(f"perl -e '{FILL}' &")
        until("processes are free", lambda: int(str(box.status()["processes"])) > 36)
        box.run("kill -9 $PPID $$")
        with pytest.raises(ShellExited, match=r"no shell can be started.* process.*%sandboxctl reset"):
            box.run("true")
        box.reset()
        assert box.run("sh -c 'echo works'").stdout == "works\n"


def test_a_shell_that_was_ended_too_late() -> None:
    """The order to end the shell comes when its cell has just ended: that cell says what was lost, not the next one."""
    with Sandbox(engine="bubblewrap") as box:
        box.run("true")
        assert box._session is not None
        control = box._session.control
        call = control.call

        def slowly(command: str, **how: Any) -> str:
            if command.startswith("finish") and "kill" not in command:
                return "0"  # as if it had found nothing to end
            if command.startswith("finish"):
                call(command.partition(" >")[0])
                time.sleep(1)  # meanwhile the shell reports the end of the cell
            return call(command, **how)

        control.call = slowly  # type: ignore[method-assign]
        stop = threading.Timer(0.5, box.interrupt)
        stop.start()
        result = box.run("sh -c 'trap \"\" INT TERM; while :; do sleep 0.1; done'")
        stop.join()
        assert (result.stopped_by, result.shell_ended) == ("new shell", True)
        assert result.notes[0].startswith("the shell ended with this cell")
        assert box.run("true").notes == ()


def test_a_job_that_took_too_long() -> None:
    with Sandbox(engine="bubblewrap") as box:
        job = box.start_job("echo begun; sleep 100", timeout=0.5)
        assert (job.wait(60).timed_out, job.state, repr(job)) == (
            True,
            "timed out (SIGINT)",
            "Job('job1', timed out (SIGINT))",
        )
        job = box.start_job("exit 3", name="other")
        job.wait(60)
        assert job.state == "exit status 3"


def test_echo_writes_what_comes_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """`print` would end a line after each piece; and a terminal would obey what a piece says."""
    seen: list[bytes] = []
    code = r"printf wo; sleep 0.3; printf 'rd\342\202'; sleep 0.3; printf '\254\n\033]0;title\007\n'; echo err >&2"
    with Sandbox(engine="bubblewrap") as box:
        result = box.run(code, echo=True, on_output=lambda output: seen.append(output.data))
    said = capsys.readouterr()
    assert (said.out, said.err) == ("word\N{EURO SIGN}\n\n", "err\n")
    assert b"".join(seen) == result.output.encode()
