"""Asking for a line of input whenever a cell waits for one: at the pipe of a `Feed`, or at its terminal."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace

from sandbox_magic import terminal
from sandbox_magic.control import ControlShell
from sandbox_magic.engines.base import Machine
from sandbox_magic.errors import InvalidOptions, SandboxError
from sandbox_magic.feed import Feed, Source
from sandbox_magic.protocol import Output
from sandbox_magic.running import Run, both

_LOOK_SECONDS = 0.15  # between two looks at whether the cell waits; it is asked for when two in a row say so
_END_OF_INPUT = b"\x04"  # what a terminal takes for it
_ECHO_SECONDS = 2.0  # in which a terminal shows what it was sent
_ECHO_PIECES = 4
_STAGED_MAX = 1 << 16  # bytes that go into a file before the cell; more is faster through a pipe beside it

Ask = Callable[[], str | None]
Cell = Callable[[], tuple[int, ...]]


class Asker:
    """Ask for a line whenever the cell waits for one.

    Args:
        feed: Where the answers go.
        control: What looks.
        ask: Returns a line without its newline, or `None` for the end of the input. `KeyboardInterrupt` says that the
            cell is being interrupted.
        cell: Returns what the cell's processes are found by; empty while it has not begun.
    """

    def __init__(self, feed: Feed, control: ControlShell, ask: Ask, cell: Cell) -> None:
        self._feed, self._control, self._ask, self._cell = feed, control, ask, cell
        self._seen = 0
        self._due = time.monotonic() + _LOOK_SECONDS
        self._done = False

    def tick(self) -> float | None:
        """Look, and ask, if it is time; return in how many seconds it is again."""
        if self._done:
            return None
        if time.monotonic() >= self._due:
            cell = self._cell()
            said = self._look(" ".join(map(str, cell))) if cell else ""
            self._seen = self._seen + 1 if said else 0
            if self._seen > 1:
                self._seen = 0
                try:
                    self._answer(said)
                except KeyboardInterrupt:  # the cell is being stopped: an end of its input would let it go on first
                    self._done = True
                    return None
            self._due = time.monotonic() + _LOOK_SECONDS
        return max(0.0, self._due - time.monotonic())

    def _call(self, command: str) -> str:
        with contextlib.suppress(SandboxError):  # the next look is soon
            return self._control.call(command)
        return ""

    def _look(self, cell: str) -> str:
        """Return something if a process of the cell (shell, supervisor, age in 10 ms) waits for the feed."""
        return self._call(f"waits {self._feed.pid} {cell}")

    def _answer(self, said: str) -> None:  # noqa: ARG002 # what the look has found
        text = self._ask()
        if text is None or not self._feed.send(text.encode(errors="surrogateescape") + b"\n"):
            self._done = True
            self._feed.close()


class TerminalAsker(Asker):
    """The same at a terminal, which also says whether the answer is a secret: then it does not show what is typed.

    Its input never ends as a pipe's does: an end is for one reader, so every further one gets one, unasked. Without
    `ask` the first one does, too.
    """

    def __init__(
        self, feed: Feed, control: ControlShell, ask: Ask | None, cell: Cell, *, ask_secret: Ask | None
    ) -> None:
        super().__init__(feed, control, ask or _nothing, cell)
        self._ask_secret = ask_secret or self._ask
        self._ended = ask is None
        self._echo = b""
        self._echo_until = 0.0
        self._echo_pieces = 0

    def _look(self, cell: str) -> str:
        return self._call(f"asks {cell}")

    def _answer(self, said: str) -> None:
        modes = said.replace(";", " ").split()
        text = None
        if not self._ended:
            text = (self._ask_secret if _is_secret(modes) else self._ask)()
        self._ended = text is None
        line = _END_OF_INPUT if text is None else text.encode(errors="surrogateescape") + b"\n"
        if text is not None and "echo" in modes:
            self._echo, self._echo_pieces = _shown(line), _ECHO_PIECES
            self._echo_until = time.monotonic() + _ECHO_SECONDS
        self._done = not self._feed.send(line)

    def without_echo(self, output: Output) -> Output:
        """Return the output without what the terminal shows of an answer: whoever has typed it has seen it."""
        if not self._echo:
            return output
        data = output.data
        self._echo_pieces -= 1
        if self._echo.startswith(data):
            self._echo = self._echo[len(data) :]
            return replace(output, data=b"")
        before, found, after = data.partition(self._echo)
        if found or not self._echo_pieces or time.monotonic() > self._echo_until:
            self._echo = b""
        return replace(output, data=before + after)


def _is_secret(modes: list[str]) -> bool:
    """Say whether a terminal hides what is typed; a line editor, which shows it itself, also takes Enter as it is."""
    return "echo" not in modes and "-icrnl" not in modes


def _shown(line: bytes) -> bytes:
    """Return what a terminal shows of a line that is typed."""
    return b"".join(b"^%c" % (byte ^ 64) if byte < 32 and byte not in b"\t\n" else b"%c" % byte for byte in line)


def _nothing() -> None:
    """Answer with the end of the input."""


@dataclass(frozen=True, slots=True)
class Input:
    """What a cell may read.

    Attributes:
        given: Text or bytes; or an iterator of them, or an object with `read`, which another thread reads as the cell
            goes on. With neither this nor `ask` the cell is at its end of file at once.
        ask: Called whenever the cell waits for input, which is then the line that this returns; `None` ends the input.
        ask_secret: Called instead where a terminal does not show what is typed; `ask` if not given.
    """

    given: str | bytes | Source | None = None
    ask: Ask | None = None
    ask_secret: Ask | None = None

    def __post_init__(self) -> None:
        """Raise `InvalidOptions` unless it is something that can be read and somebody who can be asked."""
        given = self.given
        if not (given is None or hasattr(given, "read") or isinstance(given, Iterable)):
            raise InvalidOptions(f"stdin: text, bytes, a file or an iterator of them, not {type(given).__name__}")
        for name, ask in (("ask", self.ask), ("ask_secret", self.ask_secret)):
            if not (ask is None or callable(ask)):
                raise InvalidOptions(f"{name}: a function that returns a line or None, not {type(ask).__name__}")


class Reading:
    """Gives one run what it reads.

    Args:
        run: The cell.
        given: What it may read.
        machine: Where it runs.
        control: The shell beside its own.
        cell: Returns what the cell's processes are found by; empty while it has not begun.
    """

    def __init__(self, run: Run, given: Input, machine: Machine, control: ControlShell, cell: Cell) -> None:
        self._run, self._input, self._machine, self._control, self._cell = run, given, machine, control, cell

    def begin(self, shell: str = "") -> AbstractContextManager[None]:
        """Give it, until the context ends; with the name of a shell also a terminal, on which that shell is to run it.

        Raises:
            InvalidOptions: There is no terminal to be had.
        """
        if shell:
            return self._on_terminal(shell)
        if self._input.given is None and self._input.ask is None:
            return nullcontext()
        return self._at_pipe(self._input.ask)

    @contextmanager
    def _on_terminal(self, shell: str) -> Iterator[None]:
        terminal.check(self._control.call(terminal.PROBE, timeout=10))
        asked = self._input.ask if self._input.given is None else None
        with Feed(self._machine, self._control) as feed:
            asker = TerminalAsker(feed, self._control, asked, self._cell, ask_secret=self._input.ask_secret)
            self._run.hear = asker.without_echo
            self._run.tick = both(asker.tick, self._run.tick)
            self._run.sent = terminal.on_terminal(self._run.code, shell, feed.path, is_stdin=asked is not None)
            with self._at_pipe(None):
                yield

    @contextmanager
    def _at_pipe(self, ask: Ask | None) -> Iterator[None]:
        """Give the run its stdin, and ask for it if it is not given."""
        run, stdin = self._run, self._input.given
        stdin = stdin.encode() if isinstance(stdin, str) else stdin
        stdin = bytes(stdin) if isinstance(stdin, bytearray | memoryview) else stdin
        if isinstance(stdin, bytes) and len(stdin) > _STAGED_MAX:
            stdin = io.BytesIO(stdin)
        if isinstance(stdin, bytes) or (stdin is None and ask is None):
            run.stdin = stdin
            yield
            return
        with Feed(self._machine, self._control) as feed:
            run.feed = feed
            if stdin is not None:
                feed.pour(stdin)
            elif ask is not None:
                run.tick = both(Asker(feed, self._control, ask, self._cell).tick, run.tick)
            yield
        run.notes += feed.notes
