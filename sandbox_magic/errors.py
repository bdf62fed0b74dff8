"""One tree of errors. Facts are in attributes, the sentence is in `__str__`, a notebook shows one to three lines.

Who is to blame picks the class: the user's line (`InvalidOptions`), the engine (`EngineError`), the session
(`SessionError`), a file transfer (`TransferError`), the command itself (`CommandFailed`, `CommandTimeout`).
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandbox_magic.result import Result

_HINTS = {
    125: "the tool that should have started the command failed",
    126: "found but not executable: is it a directory, or is its x bit missing (chmod +x)?",
    127: "command not found: is it installed in the sandbox, is PATH right?",
    130: "interrupted (SIGINT)",
    134: "aborted (SIGABRT)",
    137: "killed (SIGKILL)",
    139: "segmentation fault (SIGSEGV)",
    141: "its reader went away (SIGPIPE)",
    143: "terminated (SIGTERM)",
}
_TOO_LONG = b"rgument list too long"  # as every shell says it


class SandboxError(Exception):
    """Base class. In a notebook it shows as its sentence, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        """Return what IPython prints instead of a traceback: one text, for some of its modes join without newlines."""
        from sandbox_magic.ansi import sanitize  # noqa: PLC0415 # its patterns take a while

        text = "\n".join([f"{type(self).__name__}: {self}", *self._remarks()])
        return ["\n".join(map(sanitize, text.split("\n")))]  # whatever a sandbox or an engine has said

    def _remarks(self) -> tuple[str, ...]:
        return ()


class InvalidOptions(SandboxError, ValueError):
    """The user's line or arguments cannot be carried out; nothing was started or changed."""


class EngineError(SandboxError):
    """The engine that runs sandboxes failed, not the command."""


class EngineUnavailable(EngineError):
    """No engine answers. The sentence lists what was tried, why each failed, and what to do."""


class ImageNotFound(EngineError):
    """The image is neither present nor could it be pulled.

    Attributes:
        image: The image's name as it was asked for.
        reason: Why the pull failed, in the engine's words.
    """

    def __init__(self, image: str, reason: str) -> None:
        super().__init__(image, reason)
        self.image = image
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"image {self.image!r} is not on this engine and could not be pulled: {self.reason}. "
            "Check the name and the tag, log in to its registry, or load it with `docker load`."
        )


class LimitNotEnforced(EngineError):
    """The engine has started a sandbox without some of its limits, so it was ended.

    Attributes:
        engine: The engine.
        limits: Which, each with what was found instead.
    """

    def __init__(self, engine: str, limits: tuple[str, ...]) -> None:
        super().__init__(engine, limits)
        self.engine = engine
        self.limits = limits

    def __str__(self) -> str:
        return (
            f"engine {self.engine} does not enforce what limits a sandbox: {'; '.join(self.limits)}. Nothing was run. "
            "Use an engine that does (`sandbox-magic doctor` tells), or go on without these limits: --allow-degraded, "
            "allow_degraded=True"
        )


class StartTimeout(EngineError):
    """The sandbox or its shell did not answer in time after its start."""


class SessionError(SandboxError):
    """The persistent shell cannot take this request."""


class SessionBusy(SessionError):
    """A command is still running in this session; one runs at a time."""


class SessionClosed(SessionError):
    """The session or its sandbox was closed; make a new one."""


class ShellExited(SessionError):
    """The shell could not be kept alive: it ended again and again while it was being started."""


class ProtocolError(SandboxError):
    """The shell's side of the stream does not follow the protocol; that session is lost, nothing else."""


class TransferError(SandboxError):
    """A file could not be copied into or out of the sandbox, or was refused for safety."""


class CommandFailed(SandboxError, subprocess.CalledProcessError):
    """The command itself ended with a non-zero or an unknown exit code; our machinery worked.

    Attributes:
        result: The whole `Result`.
        exit_code: Its exit code; `None` if unknown.
        returncode, cmd, output, stdout, stderr: As `subprocess.CalledProcessError` has them (text). An unknown exit
            code is -1 in `returncode`, which must be a number.
    """

    def __init__(self, result: Result) -> None:
        code = -1 if result.exit_code is None else result.exit_code
        subprocess.CalledProcessError.__init__(self, code, result.code)
        self.result = result
        self.exit_code = result.exit_code

    @property
    def stdout(self) -> str:
        """What the command wrote to stdout."""
        return self.result.stdout

    @property
    def output(self) -> str:  # the base class sets it; ours is read on demand
        """The same as `stdout`, the older name of `subprocess`."""
        return self.result.stdout

    @output.setter
    def output(self, value: object) -> None:
        """Ignore what the base class's constructor sets."""

    @property
    def stderr(self) -> str:
        """What the command wrote to stderr."""
        return self.result.stderr

    @stderr.setter
    def stderr(self, value: object) -> None:
        """Ignore what the base class's constructor sets."""

    def __reduce__(self) -> tuple[type, tuple[Result]]:
        return type(self), (self.result,)

    def __str__(self) -> str:
        if self.exit_code is None:
            return "exit status unknown: the command's end was not seen"
        hint = _HINTS.get(self.exit_code, "")
        if self.exit_code in (126, 127) and _TOO_LONG in self.result.stderr_bytes:
            hint = "Linux takes no argument and no variable of 128 KiB or more, and 2 MiB of all: use stdin or a file"
        if not hint and self.result.signal:
            hint = f"ended by {self.result.signal}"
        return f"exit status {self.exit_code}" + (f": {hint}" if hint else "")

    def _remarks(self) -> tuple[str, ...]:
        return self.result.notes


class CommandTimeout(SandboxError, TimeoutError):
    """The command did not finish within its timeout and was stopped.

    Attributes:
        result: What it had done by then, with the partial output.
        timeout: The limit in seconds.
    """

    def __init__(self, result: Result, timeout: float) -> None:
        super().__init__(result, timeout)
        self.result = result
        self.timeout = timeout

    def __str__(self) -> str:
        return f"the command did not finish within {self.timeout:g} s and was stopped ({self.result.stopped_by})"

    def _remarks(self) -> tuple[str, ...]:
        return self.result.notes


def unknown_name(what: str, name: str, names: Sequence[str], *, none: str) -> InvalidOptions:
    """Return the error that something of this name is not there, with what was meant or what there is.

    Args:
        what: What was looked for.
        name: What the user called it.
        names: Those that are there.
        none: What is said if there are none.
    """
    from difflib import get_close_matches  # noqa: PLC0415 # only for this

    near = get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names)}" if names else none
    return InvalidOptions(f"no {what} is named {name!r}: {hint}")
