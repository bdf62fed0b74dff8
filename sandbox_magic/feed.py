"""`Feed`: a stream into the stdin of a cell, for what is not known before the cell begins.

A helper process inside copies its own stdin into a pipe that only it writes to, and the cell reads that pipe. When the
helper ends, the cell is at its end of input. What a Python iterator gives is taken by one thread and sent by another,
so that small pieces travel together, and yet at once when the iterator pauses.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from sandbox_magic.control import ControlShell
from sandbox_magic.engines.base import Machine
from sandbox_magic.errors import SandboxError, SessionError
from sandbox_magic.shell.lines import octal
from sandbox_magic.transport import first_line

_HELPER = """IFS= read -r name
for folder in /tmp /dev/shm /run "$PWD"; do
  fifo=$folder/.sandbox-in-$name
  mkfifo -m 600 "$fifo" 2>/dev/null || continue
  exec 3<>"$fifo" && rm -f "$fifo" && echo "$$" && exec cat >&3
done"""
_OPEN_SECONDS = 10.0
_PIECE = 1 << 16
_GATHER_SECONDS = 0.002  # in which small pieces come together
_AHEAD = 1 << 18  # bytes that are taken before they can be sent

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
        self._closing, self._io = threading.Lock(), threading.Lock()
        self._store = _Store()
        self.begun = threading.Event()  # set when the cell has opened the stream: only then may it end
        self.notes: list[str] = []
        self.pid = self._begin()

    @property
    def path(self) -> str:
        """What the cell's stdin is opened from."""
        return f"/proc/{self.pid}/fd/3"

    def _begin(self) -> int:
        self._transport.send(secrets.token_hex(8).encode() + b"\n")
        pid, _ = first_line(self._transport, _OPEN_SECONDS)
        if not pid.isdigit():
            self.close()
            raise SessionError("the cell was not run: the stream for its stdin cannot be made inside")
        return int(pid)

    def send(self, data: bytes) -> bool:
        """Send bytes, waiting until they are on their way; return whether anybody can still read them."""
        with self._io:  # not once it is closed: its descriptors may be another one's by then
            if not self._closed:
                self._transport.send(data)
        while not self._closed:
            with self._io:
                if self._closed or not self._transport.pending():
                    break
                if any(not piece for _, piece in self._transport.receive(1.0)):
                    return False
        return not self._closed

    def pour(self, source: Source) -> None:
        """Send all of `source` from threads of their own, then end the input."""
        store = self._store

        def take() -> None:
            try:
                for piece in _pieces(source):
                    if not store.put(piece.encode() if isinstance(piece, str) else bytes(piece)):
                        return
            except Exception as error:  # noqa: BLE001 # the caller's code
                self.notes.append(f"stdin has ended early: {error!r}")
            finally:
                store.end()

        def send() -> None:
            try:
                while (data := store.get()) and self.send(data):
                    pass
                self.begun.wait()
            finally:
                self.close()

        for work in (take, send):
            threading.Thread(target=work, name="sandbox-stdin", daemon=True).start()

    def close(self) -> None:
        """End the input; again is allowed."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        self._store.give_up()
        self._transport.wake()
        with self._io:  # whoever sends is through with its descriptors
            self._transport.close()

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        """End the input and the helper, which may be in the middle of bytes that nobody reads any more."""
        self.close()
        self.begun.set()
        with contextlib.suppress(SandboxError):  # it ends with the sandbox at the latest
            self._control.call(f"drop {self.pid}")


def stage(control: ControlShell, supervisor: int, stdin: bytes | None) -> str:
    """Put what a cell shall read into the file that its supervisor keeps for it.

    Returns:
        The path; empty for nothing.

    Raises:
        SessionError: There is no room for it.
    """
    if stdin is None:
        return ""
    path = f"/proc/{supervisor}/fd/8"
    if "done" not in control.call(f"printf %b '{octal(stdin).decode()}' >|{path} && echo done", timeout=_OPEN_SECONDS):
        raise SessionError("the cell was not run: the sandbox has no room for its stdin, see `df /dev/shm /tmp`")
    return path


class _Store:
    """Pieces on their way from one thread to another, joined.

    Without a lock, which would cost more than a small piece: each number is written by one thread only, and whoever
    waits clears the event before it looks again.
    """

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._put = self._taken = 0  # bytes
        self._arrived, self._room = threading.Event(), threading.Event()
        self._ended = self._given_up = False

    def put(self, piece: bytes) -> bool:
        """Add a piece, waiting while there is much; return whether anybody still wants it."""
        self._pieces.append(piece)
        self._put += len(piece)
        if not self._arrived.is_set():
            self._arrived.set()
        while self._put - self._taken > _AHEAD and not self._given_up:
            self._room.clear()
            if self._put - self._taken > _AHEAD and not self._given_up:
                self._room.wait()
        return not self._given_up

    def get(self) -> bytes:
        """Take all that there is, waiting for something; nothing at the end."""
        while True:
            self._arrived.wait()
            ended = self._ended
            if not ended:
                time.sleep(_GATHER_SECONDS)
                self._arrived.clear()
                if self._ended:
                    self._arrived.set()  # or its end would not be noticed
            taken = []
            with contextlib.suppress(IndexError):
                while True:
                    taken.append(self._pieces.popleft())
            data = b"".join(taken)
            self._taken += len(data)
            self._room.set()
            if data or ended:
                return data

    def end(self) -> None:
        """Say that no more will come."""
        self._ended = True
        self._arrived.set()

    def give_up(self) -> None:
        """Say that nobody takes anything more."""
        self._given_up = True
        self._room.set()
        self.end()


def _pieces(source: Source) -> Iterator[str | bytes | bytearray | memoryview]:
    read = getattr(source, "read1", None) or getattr(source, "read", None)  # read1 does not wait for a full piece
    for piece in source if read is None else iter(lambda: read(_PIECE), None):
        if not isinstance(piece, str | bytes | bytearray | memoryview):
            what = "an iterator" if read is None else "a file"
            raise TypeError(f"{what} for stdin must give bytes or str, not {type(piece).__name__}")
        if read is not None and not piece:
            return
        yield piece
