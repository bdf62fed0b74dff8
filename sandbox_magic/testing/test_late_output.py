"""What jobs print after their cell is kept, whole, and never among the output of another cell."""

from __future__ import annotations

import time
from collections import defaultdict

from sandbox_magic import Sandbox
from sandbox_magic.protocol import STDERR, STDOUT
from sandbox_magic.testing.host import Kept, until
from sandbox_magic.testing.test_leaks import CONNECTIONS


class Heard:
    """All late output of a sandbox, by job and stream."""

    def __init__(self, box: Sandbox) -> None:
        self._box = box
        self._all: dict[tuple[str, str], bytes] = defaultdict(bytes)

    def of(self, job: str, stream: str = STDOUT) -> bytes:
        """Return what has come from the jobs of a cell so far."""
        self._listen()
        return self._all[job, stream]

    def lines(self) -> list[str]:
        """Return all lines of all jobs, sorted."""
        self._listen()
        return sorted(line for data in self._all.values() for line in data.decode().splitlines())

    def jobs(self) -> set[str]:
        """Return what is said to have printed something."""
        return {job for (job, _), data in self._all.items() if data}

    def _listen(self) -> None:
        for output in self._box.late_output():
            self._all[output.job, output.stream] += output.data


def descriptors(box: Sandbox) -> int:
    """Return how many there are when the sandbox has rested after a cell."""
    box.run("true")
    time.sleep(0.5)
    return Kept.now().descriptors


def test_a_job_prints_while_another_cell_runs(box: Sandbox) -> None:
    heard = Heard(box)
    job = "(until [ -e /tmp/go ]; do sleep 0.1; done; echo late; echo bad >&2; >/tmp/gone) & echo now"
    assert box.run(job).stdout == "now\n"
    wait = ">/tmp/go; until [ -e /tmp/gone ]; do sleep 0.1; done; sleep 0.3"
    result = box.run(f"{wait}; echo own; echo mine >&2; exec 2>&1; echo last >&2")
    assert (result.stdout, result.stderr) == ("own\nlast\n", "mine\n")
    until("late output is missing", lambda: (heard.of(job), heard.of(job, STDERR)) == (b"late\n", b"bad\n"), seconds=60)
    assert box.run("echo next; exit 3").stdout == "next\n"
    assert box.run("echo new >&2").stderr == "new\n"


def test_what_only_the_end_of_its_parents_has_set_free_is_apart_too(box: Sandbox) -> None:
    heard = Heard(box)
    job = "( (until [ -e /tmp/go ]; do sleep 0.1; done; echo late; >/tmp/gone) & )"
    box.run(job)
    assert box.run(">/tmp/go; until [ -e /tmp/gone ]; do sleep 0.1; done; sleep 0.3; echo own").stdout == "own\n"
    until("late output is missing", lambda: heard.of(job) == b"late\n")


def test_the_jobs_of_a_shell_that_has_ended_are_apart_too(box: Sandbox) -> None:
    heard = Heard(box)
    job = "(until [ -e /tmp/go ]; do sleep 0.1; done; echo late; >/tmp/gone) & exit 4"
    assert box.run(job).exit_code == 4
    assert box.run(">/tmp/go; until [ -e /tmp/gone ]; do sleep 0.1; done; sleep 0.3; echo own").stdout == "own\n"
    until("late output is missing", lambda: heard.of(job) == b"late\n")


def test_a_daemon_that_the_cell_does_not_show_is_apart_too(box: Sandbox) -> None:
    heard = Heard(box)
    daemon = "(until [ -e /tmp/go ]; do sleep 0.1; done; echo late; >/tmp/gone) \\046\\n"
    box.run(f"printf '{daemon}' >/tmp/daemon")
    assert box.run("sh /tmp/daemon; echo now").stdout == "now\n"
    assert box.run(">/tmp/go; until [ -e /tmp/gone ]; do sleep 0.1; done; sleep 0.3; echo own").stdout == "own\n"
    until("late output is missing", lambda: heard.of("sh /tmp/daemon; echo now") == b"late\n")


def test_what_a_cell_has_opened_goes_where_its_output_goes(box: Sandbox) -> None:
    box.run("exec 3>&1 4>/tmp/file; sleep 1000 & echo")
    assert box.run("echo three >&3; echo four >&4; cat /tmp/file").stdout == "three\nfour\n"
    box.run("exec >/tmp/other; sleep 1000 &")
    assert box.run("echo other; cat /tmp/other >&3").stdout == "other\n"


def test_twenty_cells_leave_a_job_each_and_nothing_is_left_of_them(box: Sandbox) -> None:
    heard = Heard(box)
    before = descriptors(box)
    jobs = [f"(until [ -e /tmp/go ]; do sleep 0.5; done; echo late {number}) & echo {number}" for number in range(20)]
    assert [box.run(job).stdout for job in jobs] == [f"{number}\n" for number in range(20)]
    assert descriptors(box) > before + CONNECTIONS
    box.run(">/tmp/go")
    for number in range(5):
        result = box.run(f"sleep 0.1; echo {number}; echo {number} >&2")
        assert (result.stdout, result.stderr) == (f"{number}\n",) * 2
    wanted = sorted(f"late {number}" for number in range(20))
    until("late output is missing", lambda: heard.lines() == wanted, seconds=60)
    assert heard.jobs() <= {*jobs, ""}
    until("descriptors are left", lambda: descriptors(box) <= before + CONNECTIONS, seconds=60)


def test_a_busy_job_during_a_hundred_cells(box: Sandbox) -> None:
    wait = "until [ -e /tmp/go ]; do sleep 0.1; done"
    job = f"({wait}; while [ ! -e /tmp/enough ]; do echo noise; echo noise >&2; sleep 0.01; done) & echo now"
    assert box.run(job).stdout == "now\n"
    box.run(">/tmp/go; sleep 0.3")
    for number in range(100):
        result = box.run(f"echo {number}; echo {number} >&2")
        assert (result.stdout, result.stderr) == (f"{number}\n",) * 2
    box.run(">/tmp/enough")
    late = box.late_output()
    assert {output.job for output in late} == {job}
    assert {line for output in late for line in output.data.split(b"\n")[1:-1]} <= {b"noise"}
    assert late


def test_a_background_flood_does_not_block(box: Sandbox) -> None:
    box.run("(head -c 30000000 /dev/zero; echo done >/tmp/done) &")
    until("the flood stands still", lambda: box.run("cat /tmp/done 2>/dev/null").stdout == "done\n", seconds=60)
    assert sum(len(output.data) for output in box.late_output()) <= 1 << 20
