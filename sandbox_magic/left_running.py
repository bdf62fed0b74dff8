"""What cells have left running in a sandbox: found in /proc by the control shell, and told with the cell of each."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from sandbox_magic.link import ShellLink

SUBSHELL = "(part of a cell)"  # a subshell has the command line of its shell

_MOST = 200  # commands that are read; there may be thousands of processes
_TICKS = 100.0  # of /proc in a second
_SLACK = 0.03  # seconds of a tick, and more, beside the way to the other clock and back
_SECONDS = 10.0  # for an answer, which takes a process each


@dataclass(frozen=True, slots=True)
class Process:
    """What a cell has left running.

    All of it is what the process, which may be hostile, says of itself: to be shown escaped.

    Attributes:
        pid: Its process id, as the sandbox sees it: ``kill PID`` in a cell ends it.
        command: Its command line with blanks between the words, cut after 300 bytes.
        seconds: For how long it has run.
        cell: The line of the cell that has started it; empty where that is not sure.
        output: What the jobs of such a line have printed since their cells ended: the last 64 kB, both streams.
    """

    pid: int
    command: str
    seconds: float
    cell: str = ""
    output: str = ""


def left_running(link: ShellLink, others: Iterable[ShellLink]) -> list[Process]:
    """Return the processes that the cells of a shell have left, without those below them, the oldest first.

    Also those of a cell that runs now. `others` are the shells of jobs, whose processes are not named.

    Raises:
        SessionError: Nobody answers.
    """
    others = list(others)
    known = {pid for each in (link, *others) for pid in (each.shell_pid, each.protocol.supervisor_pid) if pid}
    shells = {each.shell_pid for each in others}
    before = time.monotonic()
    command = f"running {link.shell_pid} {' '.join(map(str, known))}"
    uptime, *lines = link.control.call(command, timeout=_SECONDS).split("\n")
    slack = time.monotonic() - before + _SLACK
    found = sorted(_Found(*map(int, line.split())) for line in lines if line)
    found = [each for each in found if each.session not in shells]
    commands = _commands(link, [each.pid for each in found])
    processes = []
    for each in found:
        age = max(0.0, float(uptime) - each.start / _TICKS)
        certain = not others or each.session == link.shell_pid  # else a job may have started it
        cell = _cell(link, each.pid, before - age, slack) if certain else ""
        told = link.late.told(cell) if cell else ""
        processes.append(Process(each.pid, commands.get(each.pid, ""), round(age, 2), cell, told))
    return processes


class _Found(NamedTuple):
    """A process: when it was started, in ticks since the machine was; its number; its session."""

    start: int
    pid: int
    session: int


def _commands(link: ShellLink, pids: list[int]) -> dict[int, str]:
    asked = " ".join(map(str, (link.shell_pid, *pids[:_MOST])))
    said = [line.strip() for line in link.control.call(f"commands {asked}", timeout=_SECONDS).split("\n")]
    return {pid: SUBSHELL if line == said[0] else line for pid, line in zip(pids, said[1:], strict=False)}


def _cell(link: ShellLink, pid: int, started: float, slack: float) -> str:
    """Return the line of the cell that has started a process.

    The shell tells the number of its last job. Of others there is only the time, which says nothing if two cells were
    near.
    """
    near = [past for past in link.past() if past.begun - slack <= started <= past.ended + slack]
    lines = {past.line for past in near if past.job == pid} or {past.line for past in near}
    return lines.pop() if len(lines) == 1 else ""
