"""`Result`: what one run did. Values only; the bytes lie in what `Captured` describes."""

from __future__ import annotations

import html
import signal as signals
from dataclasses import dataclass, field
from typing import Protocol

from sandbox_magic.errors import CommandFailed


class Captured(Protocol):
    """The captured bytes of one run, in memory or in a temporary file."""

    truncated: bool

    def stdout(self) -> bytes:
        """Return what went to stdout."""

    def stderr(self) -> bytes:
        """Return what went to stderr."""

    def output(self) -> bytes:
        """Return both streams in order of arrival."""


class Nothing:
    """The captured output of a run that printed nothing."""

    truncated = False

    def stdout(self) -> bytes:
        """Return no bytes."""
        return b""

    stderr = output = stdout


@dataclass(frozen=True, slots=True, repr=False)
class Result:
    """What one run did.

    Attributes:
        code: The command as it was given.
        exit_code: 0 for success, 128 + signal number if a signal ended it, `None` if unknown.
        duration: Wall time in seconds, from sending the command to its last byte.
        timed_out: It was stopped because its timeout ran out.
        interrupted: It was stopped on request.
        stopped_by: The step that stopped it (``"SIGINT"``, ``"SIGTERM"``, ``"SIGKILL"``, ``"new shell"``, ...); empty
            if it ended by itself.
        shell_ended: The shell itself ended in this run; the next run gets a new one.
        limits: The limits that it ran into, each as a line with its value; they are among the notes, too.
        notes: One-line remarks for the user, such as what was lost.
    """

    code: str
    exit_code: int | None
    duration: float
    captured: Captured = field(default_factory=Nothing)
    timed_out: bool = False
    interrupted: bool = False
    stopped_by: str = ""
    shell_ended: bool = False
    limits: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def stdout(self) -> str:
        """What went to stdout, as text; bytes that are not UTF-8 are replaced."""
        return self.stdout_bytes.decode(errors="replace")

    @property
    def stderr(self) -> str:
        """What went to stderr, as text; bytes that are not UTF-8 are replaced."""
        return self.stderr_bytes.decode(errors="replace")

    @property
    def output(self) -> str:
        """Both streams in order of arrival, as text."""
        return self.captured.output().decode(errors="replace")

    @property
    def stdout_bytes(self) -> bytes:
        """What went to stdout, byte for byte."""
        return self.captured.stdout()

    @property
    def stderr_bytes(self) -> bytes:
        """What went to stderr, byte for byte."""
        return self.captured.stderr()

    @property
    def truncated(self) -> bool:
        """Whether the output was longer than what is kept (64 MB unless set otherwise)."""
        return self.captured.truncated

    @property
    def signal(self) -> str | None:
        """The signal that an exit code above 128 stands for, such as ``"SIGKILL"``; else `None`."""
        if self.exit_code is None or self.exit_code <= 128:
            return None
        try:
            return signals.Signals(self.exit_code - 128).name
        except ValueError:
            return None

    def check(self) -> Result:
        """Return this result if the exit code is 0.

        Raises:
            CommandFailed: The exit code is not 0, or unknown.
        """
        if self.exit_code != 0:
            raise CommandFailed(self)
        return self

    def __repr__(self) -> str:
        facts = [f"exit_code={self.exit_code}", f"duration={self.duration:.3f}"]
        facts += [name for name in ("timed_out", "interrupted", "truncated", "shell_ended") if getattr(self, name)]
        tail = self.output[-200:]
        return f"Result({', '.join(facts)}, output={tail!r})"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:  # noqa: ARG002 # IPython's signature
        """Return a plain and an escaped display; sandbox text is never markup."""
        text = repr(self)
        return {"text/plain": text, "text/html": f"<pre>{html.escape(text)}</pre>"}
