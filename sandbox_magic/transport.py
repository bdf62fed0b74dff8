"""A full-duplex byte stream to a process inside a sandbox, with one reader.

`MultiplexedSocket` speaks the framing of a Docker exec or attach without a terminal. `Watcher` is the one thread of
this process that reads idle transports, because an engine blocks a sandbox whose output nobody reads (Docker: after
1 MB).
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import select
import selectors
import socket
import ssl
import struct
import threading
import time
import weakref
from collections.abc import Callable
from typing import IO, Protocol

from sandbox_magic.errors import EngineError
from sandbox_magic.per_process import PerProcess
from sandbox_magic.protocol import STDERR, STDOUT

_READ = 1 << 16  # a small buffer is not allocated anew from the system for each message
_READ_MUCH = 1 << 20  # for a stream that fills the small one
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

_LINE_MAX = 500  # bytes; see `first_line`
_REST_SECONDS = 0.05  # between the last use of a transport and its being watched

Chunk = tuple[str, bytes]  # stream and bytes; no bytes: the stream has ended


class Transport(Protocol):
    """What a session needs of a stream. One thread at a time reads; `wake` and `close` may come from any."""

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when something arrives."""

    def waits_on(self) -> dict[int, int]:
        """Return the descriptors that `receive` waits on now, each with the events of ``poll``."""

    def send(self, data: bytes) -> None:
        """Queue bytes and send what the other side takes now; `receive` sends the rest."""

    def pending(self) -> int:
        """Return how many bytes are queued and not sent."""

    def receive(self, timeout: float | None) -> list[Chunk]:
        """Return what has arrived, waiting at most `timeout` seconds; empty after `wake` or the time."""

    def wake(self) -> None:
        """Make a waiting `receive` return."""

    def exit_code(self) -> int | None:
        """Return the process's exit code once its streams have ended; `None` if the engine does not know."""

    def close(self) -> None:
        """Close the stream; again is allowed."""


def first_line(transport: Transport, seconds: float) -> tuple[bytes, bytes]:
    """Return the first line that a process prints, as far as it comes in so many seconds, and what came behind it."""
    said, ended = b"", False
    deadline = time.monotonic() + seconds
    while b"\n" not in said and len(said) < _LINE_MAX and not ended and (left := deadline - time.monotonic()) > 0:
        for stream, data in transport.receive(left):
            if stream == STDOUT:
                said += data
                ended = ended or not data
    line, _, rest = said.partition(b"\n")
    return line, rest


_inherited: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def close_in_child(sock: socket.socket) -> socket.socket:
    """Let a forked child close its copy: held open there, it would keep the sandbox alive after this process."""
    _inherited.add(sock)
    return sock


def _close_inherited() -> None:
    for sock in _inherited:
        with contextlib.suppress(OSError):
            os.close(sock.detach())  # the descriptor only: a shutdown would end the parent's connection


os.register_at_fork(after_in_child=_close_inherited)


def close_socket(sock: socket.socket, owner: IO[bytes] | None = None) -> None:
    """Close a socket and the file object around it."""
    with contextlib.suppress(OSError):
        sock.close()
    if owner is not None:
        with contextlib.suppress(OSError):
            owner.close()


class MultiplexedSocket:
    """A hijacked Docker connection: each frame is a stream number, a length and a payload."""

    def __init__(
        self, sock: socket.socket, *, exit_code: Callable[[], int | None], owner: IO[bytes] | None = None
    ) -> None:
        """Take over `sock`. `owner` is the file object around it, where there is one: only both closed close it."""
        sock.setblocking(False)
        self._sock = close_in_child(sock)
        self._exit_code = exit_code
        self._tls = sock if isinstance(sock, ssl.SSLSocket) else None
        self._owner = owner
        self._outgoing = bytearray()
        self._header = b""
        self._left = 0
        self._stream = STDOUT
        self._ended = False
        self._read = _READ
        self._wake_in, self._wake_out = os.pipe()
        os.set_blocking(self._wake_in, False)
        os.set_blocking(self._wake_out, False)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._poll.register(self._wake_in, select.POLLIN)

    def fileno(self) -> int:
        return self._sock.fileno()

    def waits_on(self) -> dict[int, int]:
        writing = select.POLLOUT if self._outgoing else 0
        return {self._sock.fileno(): select.POLLIN | writing, self._wake_in: select.POLLIN}

    def send(self, data: bytes) -> None:
        if not self._outgoing:
            try:
                sent = self._sock.send(data)
            except _WOULD_BLOCK:
                sent = 0
            except OSError:
                return  # the read side reports the end, with what came before it
            data = data[sent:]
        if data:
            self._outgoing += data
            self._poll.modify(self._sock, select.POLLIN | select.POLLOUT)

    def pending(self) -> int:
        return len(self._outgoing)

    def receive(self, timeout: float | None) -> list[Chunk]:
        if self._ended:
            return [(STDOUT, b""), (STDERR, b"")]
        decrypted = self._tls is not None and self._tls.pending() > 0
        if decrypted:
            timeout = 0
        ready = self._poll.poll(None if timeout is None else max(0.0, timeout) * 1000)
        if not ready and not decrypted:
            return []
        for fd, event in ready:
            if fd == self._wake_in:
                os.read(self._wake_in, 4096)
            elif event & select.POLLOUT:
                self._flush()
        try:
            data = self._sock.recv(self._read)
        except _WOULD_BLOCK:
            return []
        except OSError:
            data = b""
        if not data:
            self._ended = True
            return [(STDOUT, b""), (STDERR, b"")]
        self._read = _READ_MUCH if len(data) >= _READ else _READ
        return self._frames(data)

    def _flush(self) -> None:
        try:
            while self._outgoing:
                del self._outgoing[: self._sock.send(self._outgoing[:_READ_MUCH])]
        except _WOULD_BLOCK:
            return
        except OSError:
            self._outgoing.clear()
        self._poll.modify(self._sock, select.POLLIN)

    def _frames(self, data: bytes) -> list[Chunk]:
        if not self._left and not self._header and len(data) > 8:  # the usual case: whole frames, one or a few
            number, length = struct.unpack_from(">BxxxI", data)
            if length == len(data) - 8 and number in (1, 2):
                return [(STDERR if number == 2 else STDOUT, data[8:])]
        view, at = memoryview(data), 0
        runs: list[tuple[str, list[memoryview]]] = []  # of one stream: the engine's frames are small
        while at < len(data):
            if self._left:
                piece = view[at : at + self._left]
                if not runs or runs[-1][0] != self._stream:
                    runs.append((self._stream, []))
                runs[-1][1].append(piece)
                self._left -= len(piece)
                at += len(piece)
            else:
                more = 8 - len(self._header)
                self._header += data[at : at + more]
                at += more
                if len(self._header) == 8:
                    number, self._left = struct.unpack(">BxxxI", self._header)
                    if number > 2:
                        raise EngineError("the engine's stream is not in Docker's frame format")
                    self._stream = STDERR if number == 2 else STDOUT
                    self._header = b""
        return [(stream, b"".join(pieces)) for stream, pieces in runs]

    def wake(self) -> None:
        try:
            os.write(self._wake_out, b"x")
        except OSError:
            return  # full: the reader wakes anyway; closed: there is no reader

    def exit_code(self) -> int | None:
        return self._exit_code()

    def close(self) -> None:
        if self._wake_in < 0:
            return
        self._ended = True
        with contextlib.suppress(OSError):  # the other side was faster
            self._sock.shutdown(socket.SHUT_RDWR)
        close_socket(self._sock, self._owner)
        for fd in (self._wake_in, self._wake_out):
            os.close(fd)
        self._wake_in = self._wake_out = -1


class Watcher:
    """One daemon thread that calls back when an idle transport has something to read.

    A transport is watched from a moment after its last use, so that one command after another costs nothing here.
    A callback is called from the thread and must read, else it is called again at once. It also calls what must
    happen every few seconds.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._resting: dict[int, tuple[float, Callable[[], None], Callable[[], None]]] = {}
        self._beats: dict[int, tuple[float, float, Callable[[], None]]] = {}
        self._numbers = itertools.count()
        self._wake_in, self._wake_out = os.pipe()
        self._selector.register(self._wake_in, selectors.EVENT_READ, self._woken)
        self._look = math.inf  # when to look at what rests; put off to then even if it is in use again and rests again
        self._lock = threading.Lock()
        threading.Thread(target=self._loop, name="sandbox-watcher", daemon=True).start()

    def add(self, fd: int, callback: Callable[[], None], rested: Callable[[], None] = lambda: None) -> None:
        """Watch a descriptor, from a moment later until `remove`; in that moment `rested` is called once."""
        with self._lock:
            due = time.monotonic() + _REST_SECONDS
            self._resting[fd] = due, callback, rested
            if self._look == math.inf:
                self._look = due
                os.write(self._wake_out, b"x")

    def remove(self, fd: int) -> None:
        """Stop watching; a callback may still be on its way."""
        with self._lock:
            if self._resting.pop(fd, None) is None:
                with contextlib.suppress(KeyError, ValueError, OSError):  # closed meanwhile
                    self._selector.unregister(fd)

    def every(self, seconds: float, callback: Callable[[], None]) -> int:
        """Call from the thread every so many seconds until `stop`; the callback must not block."""
        number = next(self._numbers)
        with self._lock:
            self._beats[number] = time.monotonic() + seconds, seconds, callback
            os.write(self._wake_out, b"x")
        return number

    def stop(self, number: int) -> None:
        """End what `every` began; a call may still be on its way."""
        with self._lock:
            self._beats.pop(number, None)

    def _beat(self) -> None:
        now = time.monotonic()
        with self._lock:
            due = {number: beat for number, beat in self._beats.items() if beat[0] <= now}
            for number, (_, seconds, callback) in due.items():
                self._beats[number] = now + seconds, seconds, callback
        for _, _, callback in due.values():
            callback()

    def _timeout(self) -> float | None:
        with self._lock:
            due = min((due for due, _, _ in self._beats.values()), default=math.inf)
        due = min(due, self._look)
        return None if due == math.inf else max(0.0, due - time.monotonic())

    def _woken(self) -> None:
        os.read(self._wake_in, 4096)

    def _arm(self) -> None:
        """Watch what has rested long enough."""
        now = time.monotonic()
        rested = []
        with self._lock:
            if now < self._look:
                return
            for fd in [fd for fd, (due, _, _) in self._resting.items() if due <= now]:
                _, callback, call = self._resting.pop(fd)
                with contextlib.suppress(KeyError, ValueError, OSError):
                    self._selector.register(fd, selectors.EVENT_READ, callback)
                rested.append(call)
            self._look = min((due for due, _, _ in self._resting.values()), default=math.inf)
        for call in rested:
            call()

    def _loop(self) -> None:
        # epoll and kqueue take changes from other threads while this one waits.
        while True:
            ready = self._selector.select(self._timeout())
            for key, _ in ready:
                key.data()
            if self._beats:
                self._beat()
            self._arm()


watcher = PerProcess(Watcher)
