"""`Run`: one cell on its way through a session."""

from __future__ import annotations

import numbers
import os
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sandbox_magic.capture import Capture
from sandbox_magic.errors import EngineError, InvalidOptions
from sandbox_magic.feed import Feed
from sandbox_magic.ladder import Ladder
from sandbox_magic.protocol import Output
from sandbox_magic.pulse import Pulse
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
        hear: What its output goes through first.
        ours: It is of ours, and not of the user's.
    """

    code: str
    ladder: Ladder
    pulse: Pulse
    capture: Capture = field(default_factory=Capture)
    on_output: Callable[[Output], object] | None = None
    stdin: bytes | None = None
    tick: Tick | None = None
    hear: Callable[[Output], Output] | None = None
    sent: str = ""
    ours: bool = False
    feed: Feed | None = None
    deadline: float | None = None
    rescues: int = 0
    deaf: bool = True  # as far as the rescues have shown
    expected: int = 0  # bytes that a deaf shell will have read at the next rescue
    idle: int | None = None  # bytes that it had read when it was last seen to wait for a line of ours
    sent_at: float = 0.0
    duration: float = 0.0
    heard: bool = False  # since the pulse was looked at
    begun: bool = False
    fenced: bool = True  # else it counts as begun when it is sent
    attempts: int = 0
    done: bool = False
    exit_code: int | None = None
    shell_ended: bool = False
    timed_out: bool = False
    interrupted: bool = False
    error: BaseException | None = None
    notes: list[str] = field(default_factory=list)

    def begin(self) -> None:
        """The shell has taken it."""
        self.begun = True
        if self.feed is not None:
            self.feed.begun.set()

    def output(self, event: Output) -> None:
        """Keep and show what it has printed. If `on_output` raises, the cell is stopped first, then that is raised."""
        event = event if self.hear is None else self.hear(event)
        self.capture.add(event)
        if self.on_output is None or self.error is not None:
            return
        try:
            self.on_output(event)
        except BaseException as error:  # noqa: BLE001 # see above
            self.error = error

    def true_code(self, code: int | None) -> int | None:
        """Return the exit code of a shell that has ended: unknown if it was ended because it was deaf."""
        if not self.deaf or self.rescues < len(RESCUE_SECONDS):
            return code
        self.notes.append("the shell did not do what it was told any more, as after `set -n`, and was ended")
        return None

    def finish(self, exit_code: int | None, *note: str, shell_ended: bool = False) -> None:
        """Say how it ended."""
        self.done, self.exit_code, self.shell_ended = True, exit_code, shell_ended
        self.duration = time.monotonic() - self.sent_at
        self.notes += note

    def give_up(self, error: EngineError) -> None:
        """End it because the engine cannot go on with it: how the cell ends will not be known."""
        self.finish(None, str(error), shell_ended=True)
        self.error = self.error or error

    @property
    def rescue_due(self) -> float:
        """When the shell is to be rescued the next time, or only looked after."""
        more = self.rescues - len(RESCUE_SECONDS)
        return self.sent_at + (RESCUE_SECONDS[self.rescues] if more < 0 else _LOOK_SECONDS * (more + 1))

    def wait(self) -> float:
        """Do what is due, and return how long to wait for the next bytes."""
        wait = self.tick() if self.tick is not None else None
        due = self.rescue_due if self.deadline is None else min(self.deadline, self.rescue_due)
        left = min(due - time.monotonic(), self.pulse.wait(heard=self.heard))
        self.heard = False
        if self.ladder.climbing:
            left = min(left, self.ladder.wait())
        return max(0.0, left if wait is None else min(left, wait))

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

    def looks(self, heard: int | None, *, idle: bool) -> None:
        """Take what was seen of a shell that has had all lines of ours.

        One that has twice been seen to wait for more, seconds apart, and has read nothing in between, will not report
        either: it has taken the cell's lines for something else.
        """
        self.deaf |= idle and heard is not None and heard == self.idle
        self.idle = heard if idle else None

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
            notes=(*before, *self.notes, *self.capture.remarks()),
        )


def check(code: object, timeout: object, on_output: object) -> None:
    """Raise `InvalidOptions` unless a cell can be run so."""
    if not isinstance(code, str):
        raise InvalidOptions(f"what is run must be text, not {type(code).__name__}")
    is_number = isinstance(timeout, numbers.Real) and not isinstance(timeout, bool)
    if timeout is not None and not (is_number and timeout > 0):  # type: ignore[operator] # it is a number
        raise InvalidOptions(f"timeout: seconds, a number above 0, or None for no limit; not {timeout!r}")
    if on_output is not None and not callable(on_output):
        raise InvalidOptions(f"on_output: a function that takes each piece of output, not {on_output!r}")


def preparation(env: Mapping[str, str], cwd: str | None) -> str:
    """Return shell text that exports and changes directory.

    Raises:
        InvalidOptions: A name or a value cannot be exported.
    """
    check_env(env)
    if not isinstance(cwd, str | os.PathLike | None):
        raise InvalidOptions(f"cwd: a folder of the sandbox, not {cwd!r}")
    lines = [f"\\export {name}={shlex.quote(value)}" for name, value in env.items()]
    if cwd:
        lines.append(f"\\cd -- {shlex.quote(os.fspath(cwd))}")
    return " &&\n".join(lines)


def both(first: Tick, second: Tick | None) -> Tick:
    """Return one `tick` for two."""

    def tick() -> float | None:
        waits = [wait for each in (second, first) if each is not None and (wait := each()) is not None]
        return min(waits, default=None)

    return tick
