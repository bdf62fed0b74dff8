"""What is left of a shell that has ended: how that is said, and how the first shell of another session gets it, too."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from sandbox_magic.control import ControlShell
from sandbox_magic.errors import SessionError
from sandbox_magic.protocol import Initialized

ENDED = "the shell ended with this cell"
CUT = "the stream to the shell has ended, how far the cell came is not known"
SANDBOX_ENDED = "the sandbox itself has ended during this cell; its files are lost"
BETWEEN = "the shell had ended since the last cell"

_EXPORTS = "the same directory and exports"
_STATE_END = "\n__=restored\n"
_STATE_TRIES = 100


@dataclass(slots=True)
class Estate:
    """What is known of what a shell would leave to the next one of its link.

    Attributes:
        wanted: Whether checkpoints are made, which hold more than directory and exports.
        due: Whether a cell has run since the last one.
        writing: Whether one may still be in the making: a cell behind it needs a fence to begin.
        exists: Whether there is one.
        given: Whether another session may have left one.
    """

    wanted: bool
    due: bool = False
    writing: bool = False
    exists: bool = False
    given: bool = False
    _reported: bool = False  # some cell has come to its end, so there is something to restore
    _replacing: bool = False
    _promised: bool = False

    def sent(self) -> None:
        """A cell is on its way."""
        self.due, self.writing = True, False

    def reported(self) -> None:
        """A cell has come to its end, and the shell has saved directory and exports."""
        self._reported = True

    def saved(self) -> None:
        """A checkpoint is on its way."""
        self.exists, self.due, self.writing = True, False, True

    def lost(self) -> None:
        """The shell has ended; there will be another one."""
        self._replacing, self._promised = True, self.exists

    def taken(self, event: Initialized) -> list[str]:
        """A new shell has begun; return what is to be said of what it has."""
        replacing, self._replacing = self._replacing, False
        if replacing and self._reported and not event.restored:
            return ["the new shell has nothing restored: what a new shell needs was lost too"]
        if replacing and self._promised and not event.full:
            return ["the new shell has working directory and exports only: no checkpoint was readable"]
        return []

    def parting(self, why: str, shell: str, *, job: bool) -> list[str]:
        """Return what is to be said at the end of a shell: why, and what the next one has, if there is one."""
        if job:
            return [why] if why != ENDED else []
        new = "this is a new one" if why.endswith(BETWEEN) else "the next cell gets a new one"
        return [f"{why}; {new}, with {self._told(shell)}"]

    def _told(self, shell: str) -> str:
        if not self.wanted:
            return f"{_EXPORTS} (lost: variables, functions, jobs)"
        lists = shell.rpartition("/")[2] in {"bash", "zsh"}  # others cannot list their functions
        more, less = (" and functions", "") if lists else ("", "functions, ")
        return f"{_EXPORTS}, and the variables{more} from before it (lost: {less}jobs, traps, open files)"


def bequeath(control: ControlShell, supervisor: int, heir: str) -> None:
    """Copy the state beside the folder of `supervisor`, where the supervisor of that name, `heir`, looks first.

    Raises:
        SessionError: What the shell has left was not found, or there is no room for a copy.
    """
    here = f"/proc/{supervisor}"
    lines = f"while IFS= read -r line; do printf '%s\\n' \"$line\"; done <{here}/fd/7"
    for _ in range(_STATE_TRIES):  # it may be just being written
        text, found, _ = control.call(lines, timeout=10, errors="surrogateescape").partition(_STATE_END)
        if found:
            break
    copy = (
        f"(cd -P {here}/cwd/.. && mkdir -m 700 .sandbox-{heir} && cd .sandbox-{heir} && umask 077 && "
        f"printf %s {shlex.quote(text + found)} >state && "
        f"{{ [ ! -e {here}/cwd/checkpoint ] || cat {here}/cwd/checkpoint >checkpoint; }} && echo done)"
    )
    if not found or "done" not in control.call(copy, timeout=10):
        raise SessionError("the state of the shell cannot be handed to another one")
