"""The control shell, with a shell of this machine."""

from __future__ import annotations

import os
from subprocess import PIPE, Popen

import pytest

from sandbox_magic.control import ControlShell
from sandbox_magic.engines.pipes import PipeTransport
from sandbox_magic.testing.host import until


class Opener:
    """Opens shells, and knows which are still open."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.processes: list[Popen[bytes]] = []

    def __call__(self) -> PipeTransport:
        if self.failures:
            raise self.failures.pop()
        process = Popen(["sh"], stdin=PIPE, stdout=PIPE, stderr=PIPE)
        self.processes.append(process)
        fds = []
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            fds.append(os.dup(stream.fileno()))
            stream.close()
        return PipeTransport(*fds, exit_code=process.poll)

    def over(self) -> bool:
        return all(process.poll() is not None for process in self.processes)


def test_it_is_opened_once_however_often_a_shell_asks_for_it() -> None:
    """A new stream to a supervisor asks for it again; the one that nobody had used yet was left open."""
    opener = Opener()
    control = ControlShell(opener)
    control.open_in_background()
    control.open_in_background()
    until("it was not opened", lambda: bool(opener.processes))
    control.open_in_background()
    assert control.call("echo one") == "one\n"
    control.open_in_background()
    control.close()
    until("a shell is left", opener.over)
    assert len(opener.processes) == 1


def test_after_a_failure_it_is_tried_again() -> None:
    opener = Opener(OSError("no"))
    control = ControlShell(opener)
    with pytest.raises(OSError, match="no"):
        control.call("echo one")
    assert control.call("echo two") == "two\n"
    control.close()
    until("a shell is left", opener.over)
