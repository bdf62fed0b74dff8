"""`Feed`: a stream into the stdin of a cell, for what is not known before the cell begins.

A helper process inside copies its own stdin into a pipe that only it writes to, and the cell reads that pipe. When the
helper ends, the cell is at its end of input.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sandbox_magic.control import ControlShell
from sandbox_magic.engines.base import Machine
from sandbox_magic.errors import SandboxError, SessionError
from sandbox_magic.protocol import STDOUT

_HELPER = """IFS= read -r name
for folder in /tmp /dev/shm /run "$PWD"; do
  fifo=$folder/.sandbox-in-$name
  mkfifo -m 600 "$fifo" 2>/dev/null || continue
  exec 3<>"$fifo" && rm -f "$fifo" && echo "$$" && exec cat >&3
done"""
_OPEN_SECONDS = 10.0
_PIECE = 1 << 16
_LOOK_SECONDS = 0.15  # between two looks at whether the cell waits; it is asked for when two in a row say so

Ask = Callable[[], str | None]
Source = Iterable[Any]  # of bytes or text; or an object with `read`


class Feed:
    """The near end of the stream. One thread sends; `close` may come from any."""

    def __init__(self, machine: Machine, control: ControlShell) -> None:
        """Start the helper.

        Raises:
            SessionError: It did not come up.
        """
        self._transport = machine.open(["sh", "-c", _HELPER])
        self._control = control
        self._closed = False
        self.begun = threading.Event()  # set when the cell has opened the stream: only then may it end
        self.notes: list[str] = []
        self.pid = self._begin()

    @property
    def path(self) -> str:
        """What the cell's stdin is opened from."""
        return f"/proc/{self.pid}/fd/3"

    def _begin(self) -> int:
        self._transport.send(secrets.token_hex(8).encode() + b"\n")
        said = b""
        deadline = time.monotonic() + _OPEN_SECONDS
        while not said.endswith(b"\n") and (left := deadline - time.monotonic()) > 0:
            for stream, data in self._transport.receive(left):
                said += data if stream == STDOUT else b""
                if not data:
                    deadline = 0
        if not said.strip().isdigit():
            self.close()
            raise SessionError("the cell was not run: the stream for its stdin cannot be made inside")
        return int(said)

    def send(self, data: bytes) -> bool:
        """Send bytes, waiting until they are on their way; return whether anybody can still read them."""
        with contextlib.suppress(OSError, ValueError, KeyError):  # closed meanwhile
            self._transport.send(data)
            while self._transport.pending() and not self._closed:
                if any(not piece for _, piece in self._transport.receive(1.0)):
                    return False
        return not self._closed

    def pour(self, source: Source) -> None:
        """Send all of `source` from a thread of its own, then end the input."""

        def work() -> None:
            try:
                for piece in _pieces(source):
                    if self._closed or not self.send(piece.encode() if isinstance(piece, str) else bytes(piece)):
                        return
            except Exception as error:  # noqa: BLE001 # the caller's code
                self.notes.append(f"stdin has ended early: {error!r}")
            finally:
                self.begun.wait()
                self.close()

        threading.Thread(target=work, name="sandbox-stdin", daemon=True).start()

    def close(self) -> None:
        """End the input; again is allowed."""
        if not self._closed:
            self._closed = True
            self._transport.close()

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        """End the input and the helper, which may be in the middle of bytes that nobody reads any more."""
        self.close()
        self.begun.set()
        with contextlib.suppress(SandboxError):  # it ends with the sandbox at the latest
            self._control.call(f"drop {self.pid}")

    def waited_for(self, cell: str) -> bool:
        """Say whether a process of the cell (shell, supervisor, age in 10 ms) is blocked in a read of the stream."""
        with contextlib.suppress(SandboxError):  # the next look is soon
            return "yes" in self._control.call(f"waits {self.pid} {cell}")
        return False


def _pieces(source: Source) -> Iterator[Any]:
    read = getattr(source, "read1", None) or getattr(source, "read", None)  # read1 does not wait for a full piece
    if read is None:
        for piece in source:
            if not isinstance(piece, str | bytes | bytearray | memoryview):
                raise TypeError(f"an iterator for stdin must give bytes or str, not {type(piece).__name__}")
            yield piece
        return
    while piece := read(_PIECE):
        yield piece


class Asker:
    """Ask for a line whenever the cell waits for one.

    Args:
        feed: Where the answers go.
        ask: Returns a line without its newline, or `None` for the end of the input. `KeyboardInterrupt` says that the
            cell is being interrupted.
        cell: Returns what the cell's processes are found by; empty while it has not begun.
    """

    def __init__(self, feed: Feed, ask: Ask, cell: Callable[[], str]) -> None:
        self._feed, self._ask, self._cell = feed, ask, cell
        self._seen = 0
        self._due = time.monotonic() + _LOOK_SECONDS
        self._done = False

    def tick(self) -> float | None:
        """Look, and ask, if it is time; return in how many seconds it is again."""
        if self._done:
            return None
        if time.monotonic() >= self._due:
            cell = self._cell()
            self._seen = self._seen + 1 if cell and self._feed.waited_for(cell) else 0
            if self._seen > 1:
                self._seen = 0
                try:
                    self._answer(self._ask())
                except KeyboardInterrupt:  # the cell is being stopped: an end of its input would let it go on first
                    self._done = True
                    return None
            self._due = time.monotonic() + _LOOK_SECONDS
        return max(0.0, self._due - time.monotonic())

    def _answer(self, text: str | None) -> None:
        if text is None or not self._feed.send(text.encode(errors="surrogateescape") + b"\n"):
            self._done = True
            self._feed.close()
