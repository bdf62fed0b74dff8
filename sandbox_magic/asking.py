"""Asking for a line of input whenever a cell waits for one: at the pipe of a `Feed`, or at its terminal."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

from sandbox_magic import terminal
from sandbox_magic.control import ControlShell
from sandbox_magic.engines.base import Machine
from sandbox_magic.errors import SandboxError
from sandbox_magic.feed import Feed, Source
from sandbox_magic.protocol import Output
from sandbox_magic.running import Run, both

_LOOK_SECONDS = 0.15  # between two looks at whether the cell waits; it is asked for when two in a row say so
_END_OF_INPUT = b"\x04"  # what a terminal takes for it
_ECHO_SECONDS = 2.0  # in which a terminal shows what it was sent
_ECHO_PIECES = 4
_STAGED_MAX = 1 << 16  # bytes that go into a file before the cell; more is faster through a pipe beside it

Ask = Callable[[], str | None]
Cell = Callable[[], str]


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
            said = self._look(cell) if cell else ""
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


def reading(  # what there is to know
    run: Run,
    machine: Machine,
    control: ControlShell,
    cell: Cell,
    stdin: str | bytes | Source | None,
    ask: Ask | None,
    ask_secret: Ask | None,
    *,
    shell: str,
) -> AbstractContextManager[None]:
    """Give a run what it reads; with the name of a shell also a terminal, on which that shell is to run it.

    Raises:
        InvalidOptions: There is no terminal to be had.
    """
    if shell:
        return _on_terminal(run, machine, control, cell, stdin, ask, ask_secret, shell=shell)
    if stdin is None and ask is None:
        return nullcontext()
    return _feeding(run, machine, control, stdin, ask, cell)


@contextmanager
def _on_terminal(
    run: Run,
    machine: Machine,
    control: ControlShell,
    cell: Cell,
    stdin: str | bytes | Source | None,
    ask: Ask | None,
    ask_secret: Ask | None,
    *,
    shell: str,
) -> Iterator[None]:
    terminal.check(control.call(terminal.PROBE, timeout=10))
    asked = ask if stdin is None else None
    with Feed(machine, control) as feed:
        asker = TerminalAsker(feed, control, asked, cell, ask_secret=ask_secret)
        run.hear = asker.without_echo
        run.tick = both(asker.tick, run.tick)
        run.sent = terminal.on_terminal(run.code, shell, feed.path, is_stdin=asked is not None)
        with _feeding(run, machine, control, stdin, None, cell):
            yield


@contextmanager
def _feeding(
    run: Run, machine: Machine, control: ControlShell, stdin: str | bytes | Source | None, ask: Ask | None, cell: Cell
) -> Iterator[None]:
    """Give a run its stdin, and ask for it if it is not given."""
    stdin = stdin.encode() if isinstance(stdin, str) else stdin
    if isinstance(stdin, bytes) and len(stdin) > _STAGED_MAX:
        stdin = io.BytesIO(stdin)
    if isinstance(stdin, bytes) or (stdin is None and ask is None):
        run.stdin = stdin
        yield
        return
    with Feed(machine, control) as feed:
        run.feed = feed
        if stdin is not None:
            feed.pour(stdin)
        elif ask is not None:
            run.tick = both(Asker(feed, control, ask, cell).tick, run.tick)
        yield
    run.notes += feed.notes
