"""What is promised of code in the background of a sandbox."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from sandbox_magic import CommandTimeout, InvalidOptions, Sandbox, SandboxError

SECONDS = 30  # for what ends by itself


def until(done: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_job_runs_beside_the_session(shared: Sandbox) -> None:
    job = shared.start_job("echo begun; until [ -e /tmp/go ]; do sleep 0.05; done; echo err >&2; exit 3")
    until(lambda: job.output == "begun\n")
    assert (job.running, job.poll(), job.result) == (True, None, None)
    with pytest.raises(TimeoutError, match="still runs"):
        job.wait(0.05)
    assert shared.run("echo now; : >/tmp/go").output == "now\n"
    result = job.wait(SECONDS)
    assert (result.exit_code, result.stdout, result.stderr, result.notes) == (3, "begun\n", "err\n", ())
    assert (job.running, job.poll(), job.exit_code, job.output) == (False, 3, 3, "begun\nerr\n")
    assert shared.run("rm /tmp/go; echo $?").output == "0\n"
    assert not shared.late_output()


def test_a_job_begins_with_the_state_of_the_shell(box: Sandbox, kind: str) -> None:
    box.run("mkdir '/tmp/a b'; cd '/tmp/a b'; export GIVEN=\"a 'b'\n\\$c\"; plain=x; (exit 7)")
    job = box.start_job('echo "$PWD|$GIVEN|$plain|$MORE"; cd /; export GIVEN=changed', env={"MORE": "m"})
    assert job.wait(SECONDS).output == "/tmp/a b|a 'b'\n$c|x|m\n"
    assert box.run('echo "$?|$PWD|$GIVEN"').stdout == "7|/tmp/a b|a 'b'\n$c\n"
    assert box.start_job("pwd", cwd="/").wait(SECONDS).output == "/\n"
    box.run("alias hi='echo hi'; umask 027; set -u; plain=\"it's\nnew\"")
    job = box.start_job('hi; umask -S; echo "$plain"; case $- in *u*) echo u;; esac; (echo $nope) 2>/dev/null; echo on')
    assert job.wait(SECONDS).output == "hi\nu=rwx,g=rx,o=\nit's\nnew\nu\non\n"
    if kind != "sh":  # others cannot list their functions
        box.run("f() { echo \"f $1 ${a[1]}\"; }; a=(b 'c d'); set -o pipefail")
        job = box.start_job("f 1; f() { :; }; false | true; echo $?")
        assert job.wait(SECONDS).output == ("f 1 b\n1\n" if kind == "zsh" else "f 1 c d\n1\n")
        assert box.run("f 2").stdout == ("f 2 b\n" if kind == "zsh" else "f 2 c d\n")
    with pytest.raises(InvalidOptions, match="cwd"):
        box.start_job("echo never", cwd="/no/such/folder")


def test_a_job_started_while_a_command_runs_begins_with_the_state_before_it(box: Sandbox) -> None:
    box.run("cd /tmp; export GIVEN=before")
    seen = threading.Event()
    command = "GIVEN=after; cd /; echo on; until [ -e /tmp/go ]; do sleep 0.05; done"
    thread = threading.Thread(target=box.run, args=(command,), kwargs={"on_output": lambda _: seen.set()})
    thread.start()
    assert seen.wait(SECONDS)
    assert box.start_job("echo $GIVEN $PWD; : >/tmp/go").wait(SECONDS).output == "before /tmp\n"
    thread.join(SECONDS)
    assert not thread.is_alive()


def test_stop_ends_the_job_and_nothing_else(box: Sandbox) -> None:
    box.run("kept=alive; trap '' INT; sleep 4001 & mine=$!; trap - INT")
    stubborn = box.start_job("trap '' INT; (trap '' INT TERM; sleep 4002) & (setsid sleep 4003 &); echo on; sleep 4004")
    other = box.start_job("echo on; sleep 4005")
    until(lambda: stubborn.output == other.output == "on\n")
    box.run("sleep 4006 & second=$!")
    result = stubborn.stop()
    assert result.interrupted
    assert result.stopped_by
    assert stubborn.stop() is result
    assert other.running
    assert box.run("kill -0 $mine && kill -0 $second && echo $kept").stdout == "alive\n"
    assert other.stop().exit_code == 130


def test_a_job_can_be_stopped_at_once(shared: Sandbox) -> None:
    for _ in range(5):
        assert shared.start_job("sleep 4007").stop().interrupted


def test_an_interrupt_of_the_session_leaves_jobs_alone(box: Sandbox) -> None:
    job = box.start_job("echo on; until [ -e /tmp/go ]; do sleep 0.05; done; echo off")
    until(lambda: job.output == "on\n")
    with pytest.raises(CommandTimeout):
        box.run("sleep 4010", timeout=0.3)
    assert job.running
    box.run(": >/tmp/go")
    assert job.wait(SECONDS).output == "on\noff\n"


def test_timeout_stdin_and_callbacks_of_a_job(shared: Sandbox) -> None:
    job = shared.start_job("echo on; sleep 4020", timeout=0.3)
    result = job.wait(SECONDS)
    assert result.timed_out
    assert result.stdout == "on\n"
    pieces: list[bytes] = []
    ended = threading.Event()
    shared.start_job("cat", stdin="a\nb\n", on_output=lambda o: pieces.append(o.data), on_end=lambda _: ended.set())
    assert ended.wait(SECONDS)
    assert b"".join(pieces) == b"a\nb\n"


def test_names_of_jobs(box: Sandbox) -> None:
    first = box.start_job("true")
    server = box.start_job("echo on; sleep 4030", name="server")
    assert [job.name for job in box.jobs.all()] == ["job1", "server"]
    assert box.jobs.find("server") is server
    with pytest.raises(InvalidOptions, match="still runs"):
        box.start_job("true", name="server")
    with pytest.raises(InvalidOptions, match="did you mean 'server'"):
        box.jobs.find("serve")
    server.stop()
    assert box.start_job("exit 2", name="server").wait(SECONDS).exit_code == 2
    assert first.wait(SECONDS).exit_code == 0


def test_jobs_end_with_the_sandbox(box: Sandbox) -> None:
    job = box.start_job("echo on; sleep 4040")
    until(lambda: job.output == "on\n")
    box.reset()
    with pytest.raises(SandboxError, match="closed"):
        job.wait(SECONDS)
    assert (job.running, job.exit_code, job.output) == (False, None, "on\n")
    assert box.start_job("echo new").wait(SECONDS).output == "new\n"


def test_jobs_and_feeds_leave_nothing_inside(box: Sandbox) -> None:
    """The folder of the persistent shell is the only one; no helper waits for a reader."""
    folders = "find /dev/shm /tmp -maxdepth 1 -name '.sandbox-*' 2>/dev/null | wc -l"
    count = folders + "; cat /proc/[0-9]*/comm 2>/dev/null | grep -c '^cat$'"
    for _ in range(3):
        box.start_job("echo job").wait(SECONDS)
        box.run("head -n 1", stdin=iter([b"x\n" * 200_000]))
    until(lambda: box.run(count).stdout.split() == ["1", "1"])  # the one `cat` is its own
