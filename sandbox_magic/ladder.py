"""`Ladder`: the steps that stop a cell, from a polite signal to the end of everything but the keeper."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from sandbox_magic.control import ControlShell
from sandbox_magic.errors import SandboxError

_NUDGE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Step:
    """One rung.

    Attributes:
        name: What the user is told.
        command: For the control shell; ``{cell}`` is shell, supervisor and ticks, ``{shell}`` the shell.
        grace: Seconds until the next rung.
    """

    name: str
    command: str
    grace: float


STEPS = (
    Step("SIGINT", "stop INT {cell}", 2.0),
    Step("SIGTERM", "stop TERM {cell}", 0.4),
    Step("SIGKILL", "finish {cell}", 0.6),
    Step("new shell", "finish {cell} >/dev/null; kill -s KILL {shell}; kill -s CONT {shell}", 1.0),
    Step("everything ended", "clear", 1.0),
)
_FATAL = 4  # so many rungs, and the shell is ended too


class Ladder:
    """Climbs for one cell. Not thread-safe; the pump of the session drives it.

    Attributes:
        reached: The name of the last rung that was taken; empty before the first.
        exhausted: Whether even the last rung has not helped in its time.
        unheard: Whether nobody in the sandbox has answered the last order.
    """

    def __init__(self, control: ControlShell, recover: Callable[[], object], *, alone: bool = True) -> None:
        """Stand before the first rung; only where the session is `alone` in its sandbox is there the last one."""
        self.reached = ""
        self.exhausted = False
        self.unheard = False
        self._steps = STEPS if alone else STEPS[:-1]
        self._control = control
        self._recover = recover
        self._next = 0
        self._due = 0.0
        self._nudge = 0.0

    @property
    def climbing(self) -> bool:
        """Whether a first rung was taken."""
        return self._next > 0

    @property
    def fatal(self) -> bool:
        """Whether the shell itself was ordered to end."""
        return self._next >= _FATAL

    def wait(self) -> float:
        """Return the seconds until `climb` has something to do."""
        return max(0.0, min(self._due, self._nudge) - time.monotonic())

    def climb(self, shell: int, supervisor: int, ticks: int, *, now: bool) -> None:
        """Do what is due: the next rung, or a reminder to the shell.

        Args:
            shell: Process id of the cell's shell; 0 if it has not begun.
            supervisor: Process id of its supervisor.
            ticks: How long the cell has been running, in 10 ms.
            now: Take the next rung although its time has not come.
        """
        moment = time.monotonic()
        cell = f"{shell} {supervisor} {ticks}"
        if not now and moment < self._due:
            if moment >= self._nudge and shell:
                self._say(f"nudge {cell}")
                self._nudge = moment + _NUDGE_SECONDS
            return
        if self._next == len(self._steps) or (not shell and self._steps is not STEPS):
            self.exhausted = True
            return
        step = self._steps[self._next]
        if not shell:
            step = STEPS[-1]
        self._next = STEPS.index(step) + 1
        self.reached = step.name
        signalled = self._say(step.command.format(cell=cell, shell=shell))
        if not self.unheard:  # else the time in which it could have answered counts
            moment = time.monotonic()
        self._due = moment + (step.grace if signalled != "0" else 0.0)  # nobody to wait for
        self._nudge = moment + _NUDGE_SECONDS

    def _say(self, command: str) -> str:
        said = ""
        try:
            said = self._control.call(command).strip()
        except SandboxError:  # the next rung opens a new one; the last one ends the sandbox
            self.unheard = True
        else:
            self.unheard = False
        self._recover()
        return said
