"""Streams to the processes of a bubblewrap sandbox: three pipes each, and one on which their keeper reports."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import threading
import time
import weakref
from collections.abc import Callable

from sandbox_magic.protocol import STDERR, STDOUT
from sandbox_magic.transport import Chunk

_READ = 1 << 20
_CAPACITY = 1 << 20  # of a pipe, in bytes: what an ordinary user may ask for; fewer wake-ups
_REPORT_MAX = 4096  # bytes of a report line; ours have under 60

_inherited: weakref.WeakSet[PipeTransport | Reports] = weakref.WeakSet()


def _close_inherited() -> None:
    for holder in _inherited:
        holder.close_in_child()  # held open there, they would keep the sandbox's processes from seeing our end


os.register_at_fork(after_in_child=_close_inherited)


def widen(fd: int) -> None:
    """Give a pipe more room, where the system lets us."""
    with contextlib.suppress(OSError, AttributeError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _CAPACITY)


class PipeTransport:
    """A process's stdin, stdout and stderr; see `Transport`."""

    def __init__(
        self,
        stdin: int,
        stdout: int,
        stderr: int,
        *,
        exit_code: Callable[[], int | None],
        closed: Callable[[], None] = lambda: None,
    ) -> None:
        """Take over three descriptors; `closed` is called when nobody will ask for the exit code any more."""
        self._stdin = stdin
        self._names = {stdout: STDOUT, stderr: STDERR}
        self._exit_code = exit_code
        self._on_close = closed
        self._outgoing = bytearray()
        self._wake_in, self._wake_out = os.pipe()
        self._poll = select.epoll()
        for fd in (stdin, stdout, stderr, self._wake_in, self._wake_out):
            os.set_blocking(fd, False)
        for fd in (stdout, stderr, self._wake_in):
            self._poll.register(fd, select.EPOLLIN)
        self._closed = False
        _inherited.add(self)

    def fileno(self) -> int:
        return self._poll.fileno()

    def waits_on(self) -> dict[int, int]:
        return {self._poll.fileno(): select.POLLIN}

    def send(self, data: bytes) -> None:
        if not self._outgoing:
            data = data[self._write(data) :]
            if data:
                self._poll.register(self._stdin, select.EPOLLOUT)
        self._outgoing += data

    def _write(self, data: bytes | bytearray) -> int:
        """Return how many bytes the process takes now."""
        try:
            return os.write(self._stdin, data)
        except BlockingIOError:
            return 0
        except OSError:  # it is gone: the read side reports that, with what came before
            return len(data)

    def pending(self) -> int:
        return len(self._outgoing)

    def receive(self, timeout: float | None) -> list[Chunk]:
        if not self._names:
            return [(STDOUT, b""), (STDERR, b"")]
        chunks: list[Chunk] = []
        for fd, _ in self._poll.poll(None if timeout is None else max(0.0, timeout)):
            if fd == self._wake_in:
                os.read(fd, 4096)
            elif fd == self._stdin:
                self._flush()
            else:
                chunks += self._read(fd)
        return chunks

    def _read(self, fd: int) -> list[Chunk]:
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            return []
        name = self._names[fd]
        if not data:
            self._poll.unregister(fd)
            os.close(fd)
            del self._names[fd]
        return [(name, data)]

    def _flush(self) -> None:
        del self._outgoing[: self._write(self._outgoing[:_READ])]
        if not self._outgoing:
            self._poll.unregister(self._stdin)

    def wake(self) -> None:
        with contextlib.suppress(OSError):  # full: the reader wakes anyway; closed: there is no reader
            os.write(self._wake_out, b"x")

    def exit_code(self) -> int | None:
        return self._exit_code()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._poll.close()
        for fd in (self._stdin, *self._names, self._wake_in, self._wake_out):
            os.close(fd)
        self._names.clear()
        self._on_close()

    def close_in_child(self) -> None:
        """Close the copies of a forked child, where the lock of the reports may be held for ever."""
        self._on_close = lambda: None
        self.close()


class Reports:
    """What the keeper says, one line each: ``NAME WORD``. Whoever waits for a line reads.

    Args:
        fd: The read end of the keeper's stdout.
    """

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._rest = b""
        self._said: dict[str, str] = {}
        self._lock = threading.Lock()
        self.ended = False
        _inherited.add(self)

    def wait(self, name: str, words: Callable[[str], bool], timeout: float) -> str | None:
        """Return the word about `name` that fits; `None` if it does not come in `timeout` seconds or never can."""
        deadline = time.monotonic() + timeout
        with self._lock:
            while not words(self._said.get(name, "")):
                left = deadline - time.monotonic()
                if self.ended or left <= 0:
                    return None
                self._read(left)
            return self._said[name]

    def forget(self, name: str) -> None:
        """Drop what was said about a process that nobody asks about any more."""
        with self._lock:
            self._said.pop(name, None)

    def over(self) -> bool:
        """Whether the keeper has ended."""
        with self._lock:
            if not self.ended:
                self._read(0)
            return self.ended

    def _read(self, timeout: float) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        if not poll.poll(timeout * 1000):
            return
        data = os.read(self._fd, 1 << 16)
        if not data:
            self.ended = True
            return
        *lines, self._rest = (self._rest[-_REPORT_MAX:] + data).split(b"\n")
        for line in lines:  # a hostile process may forge one: then it has lied about an exit code of its own sandbox
            name, _, word = line[:_REPORT_MAX].decode(errors="replace").partition(" ")
            if name == "sandbox" or name in self._said:
                self._said[name] = word

    def expect(self, name: str) -> None:
        """Take reports about `name` from now on."""
        with self._lock:
            self._said[name] = ""

    def close(self) -> None:
        """Stop listening."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd, self.ended = -1, True

    def close_in_child(self) -> None:
        """Close the copy of a forked child; the lock may be held there for ever."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd, self.ended = -1, True
