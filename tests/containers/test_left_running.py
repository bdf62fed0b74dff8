"""What cells leave running: where it prints, and what is told of it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from sandbox_magic import CommandTimeout, Sandbox, outlets
from sandbox_magic.protocol import LateOutput
from sandbox_magic.testing.host import until

WAIT = "until [ -e /tmp/go ]; do sleep 0.1; done"
GO = ">/tmp/go; until [ -e /tmp/gone ]; do sleep 0.1; done; sleep 0.3; echo own"


@pytest.fixture(scope="module")
def debian() -> Iterator[Sandbox]:
    with Sandbox("debian:stable-slim", engine="docker") as made:
        yield made


def test_what_another_user_prints_later_is_apart_too(debian: Sandbox) -> None:
    """The shell beside the session's may not see its files."""
    script = f"({WAIT}; echo late; >/tmp/gone) \\046\\n"
    debian.run(f"chmod 1777 /tmp; printf '{script}' >/tmp/daemon")
    assert debian.run("setpriv --reuid 1000 --clear-groups sh /tmp/daemon; echo now").stdout == "now\n"
    assert debian.run(GO).stdout == "own\n"
    late: list[LateOutput] = []
    until("late output is missing", lambda: bool(late.extend(debian.late_output()) or late))
    assert [(output.data, output.job) for output in late] == [
        (b"late\n", "setpriv --reuid 1000 --clear-groups sh /tmp/daemon; echo now")
    ]


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(engine="bubblewrap") as made:
        yield made


def test_what_a_job_prints_while_the_next_cell_is_prepared_is_kept(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlets, "MOST", 1)  # so it prints where cells do
    said = box.run("set -x; (i=0; while [ $i -lt 2000 ]; do echo $((i += 1)); done; echo end) 2>/dev/null &").stdout
    said += "".join(box.run(":", cwd="/tmp", env={"A": "b"}).stdout for _ in range(50))
    said += box.run("wait; echo waited").stdout
    said += "".join(output.data.decode() for output in box.late_output() if output.stream == "stdout")
    assert sorted(said.split()) == sorted([*map(str, range(1, 2001)), "end", "waited"])


def test_what_we_run_between_two_cells_is_not_seen(box: Sandbox) -> None:
    box.run("trap 'echo debug' DEBUG")
    result = box.run("set -x; exec 3>&1; (exit 5)", cwd="/tmp", env={"A": "b"})
    assert "cd" not in result.stderr + box.run("set +x; trap - DEBUG; true").stderr
    assert box.run("(exit 5)", cwd="/").exit_code == 5
    assert box.run("echo $?", cwd="/tmp").stdout == "5\n"
    assert box.late_output() == []


def test_how_streams_come_back_is_said_again_when_that_changes(box: Sandbox) -> None:
    box.run(f"({WAIT}; echo late) & echo")
    (first,) = box.run("exec >/tmp/elsewhere").notes
    box.run(">/tmp/go")
    notes: list[str] = []
    until("the shell has not come back", lambda: bool(notes.extend(box.run("sleep 0.3").notes) or notes))
    assert notes[0].startswith("later cells show no stdout")
    assert notes[0] != first
    assert box.run(f"{notes[0].split('`')[1]}; echo back").stdout == "back\n"


def test_jobs_of_cells_are_listed_with_what_they_have_printed(box: Sandbox) -> None:
    assert box.jobs.processes() == []
    job = "(sleep 0.3; echo late; exec sleep 1001) & mine=$!"
    box.run(job)
    time.sleep(1)
    box.run("printf 'exec sleep 1002 \\046\n' >/tmp/daemon; sh /tmp/daemon; sleep 0.3")
    background = box.start_job("sleep 1003", name="other")
    until("it is not listed", lambda: [left.command for left in box.jobs.processes()] == ["sleep 1001", "sleep 1002"])
    first, second = box.jobs.processes()
    assert (first.pid, first.cell) == (int(box.run("echo $mine").stdout), job)
    until("its output is missing", lambda: box.jobs.processes()[0].output == "late\n")
    assert second.cell in {"printf 'exec sleep 1002 \\046", ""}
    assert 0 <= second.seconds <= first.seconds
    background.stop()
    box.run("kill $mine; wait")
    assert [left.command for left in box.jobs.processes()] == ["sleep 1002"]
    box.run("exit")
    assert [left.command for left in box.jobs.processes()] == ["sleep 1002"]


def test_what_is_looked_at_after_a_job_stays_unseen(box: Sandbox) -> None:
    box.run("exec 3>&1; sleep 1004 & echo")
    assert [output.data for output in box.late_output()] == []


def test_a_timeout_carries_all_that_is_known(box: Sandbox) -> None:
    with pytest.raises(CommandTimeout) as caught:
        box.run("exec >/tmp/x; sleep 100", timeout=0.5)
    assert caught.value.result is box.last
    assert caught.value.result.stopped_by == "SIGINT"
