"""What is left of a shell that has ended: how that is said, and how the first shell of another session gets it, too."""

from __future__ import annotations

import shlex

from sandbox_magic.control import ControlShell
from sandbox_magic.errors import SessionError

ENDED = "the shell ended with this cell; the next cell gets a new one, with "
CUT = "the stream to the shell has ended, how far the cell came is not known; the next cell gets a new one, with "
SANDBOX_ENDED = "the sandbox itself has ended during this cell; its files are lost"
BETWEEN = "the shell had ended since the last cell; this is a new one, with "
NOT_KEPT = "nothing restored: what a new shell needs was lost too"

_EXPORTS = "the same directory and exports"
_STATE_END = "\n__=restored\n"
_STATE_TRIES = 100


def kept(shell: str, *, restore: bool) -> str:
    """Say what the successor of a shell will have.

    Args:
        shell: Its name or path.
        restore: Whether there are checkpoints.
    """
    if not restore:
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
