"""`Run`: one cell on its way through a session."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sandbox_magic.capture import Capture
from sandbox_magic.feed import Feed
from sandbox_magic.ladder import Ladder
from sandbox_magic.protocol import Output
from sandbox_magic.result import Result
from sandbox_magic.spec import check_env

RESCUE_SECONDS = (1.0, 1.5, 2.0)  # after which a shell that does not report is made to; see `Run.listen`
_LOOK_SECONDS = 5.0  # then so often it is looked whether a shell is there

Tick = Callable[[], float | None]


@dataclass(slots=True)
class Run:
    """One cell on its way.

    Attributes:
        code: As it was given.
        sent: What the shell gets for it; the same if empty.
        stdin, feed: What it reads: all of it, or a stream.
    """

    code: str
    ladder: Ladder
    capture: Capture = field(default_factory=Capture)
    on_output: Callable[[Output], object] | None = None
    stdin: bytes | None = None
    tick: Tick | None = None
    sent: str = ""
    feed: Feed | None = None
    deadline: float | None = None
    rescues: int = 0
    deaf: bool = True  # as far as the rescues have shown
    expected: int = 0  # bytes that a deaf shell will have read at the next rescue
    sent_at: float = 0.0
    duration: float = 0.0
    begun: bool = False
    attempts: int = 0
    done: bool = False
    exit_code: int | None = None
    shell_ended: bool = False
    timed_out: bool = False
    interrupted: bool = False
    error: BaseException | None = None
    notes: list[str] = field(default_factory=list)

    def finish(self, exit_code: int | None, *note: str, shell_ended: bool = False) -> None:
        """Say how it ended."""
        self.done, self.exit_code, self.shell_ended = True, exit_code, shell_ended
        self.duration = time.monotonic() - self.sent_at
        self.notes += note

    @property
    def rescue_due(self) -> float:
        """When the shell is to be rescued the next time, or only looked after."""
        more = self.rescues - len(RESCUE_SECONDS)
        return self.sent_at + (RESCUE_SECONDS[self.rescues] if more < 0 else _LOOK_SECONDS * (more + 1))

    def listen(self, heard: int | None) -> bool:
        """Take how many bytes the shell has read so far; return whether it shall be rescued, or now left to itself.

        One that reads exactly what rescues it and neither reports nor ends runs nothing any more: it is `deaf`. Such is
        a POSIX shell after `set -n`; there is no way back from inside.
        """
        self.rescues += 1
        if self.rescues > len(RESCUE_SECONDS):
            return False
        self.deaf &= heard is not None and (self.rescues == 1 or heard == self.expected)
        self.expected = heard or 0
        if self.rescues == len(RESCUE_SECONDS):
            self.deaf &= self.begun
        return self.rescues < len(RESCUE_SECONDS)

    def result(self, before: list[str]) -> Result:
        """Return what it did; `before` are the notes of what was before it."""
        return Result(
            code=self.code,
            exit_code=self.exit_code,
            duration=self.duration,
            captured=self.capture,
            timed_out=self.timed_out,
            interrupted=self.interrupted,
            stopped_by=self.ladder.reached,
            shell_ended=self.shell_ended,
            notes=(*before, *self.notes),
        )


def preparation(env: Mapping[str, str], cwd: str | None) -> str:
    """Return shell text that exports and changes directory.

    Raises:
        InvalidOptions: A name or a value cannot be exported.
    """
    check_env(dict(env))
    lines = [f"\\export {name}={shlex.quote(value)}" for name, value in env.items()]
    if cwd:
        lines.append(f"\\cd -- {shlex.quote(cwd)}")
    return " &&\n".join(lines)


def both(first: Tick, second: Tick | None) -> Tick:
    """Return one `tick` for two."""

    def tick() -> float | None:
        waits = [wait for each in (second, first) if each is not None and (wait := each()) is not None]
        return min(waits, default=None)

    return tick
