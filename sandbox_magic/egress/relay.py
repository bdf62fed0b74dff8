"""`Relay`: this process's end of the way from a sandbox's loopback to the proxy.

A program inside (`inside.pl`, `inside.py`) listens and carries the connections over the stream of one process of the
engine, so the sandbox needs no interface, and it works wherever the engine is. Every byte of it is the sandbox's word:
who breaks the rules of the frames loses the relay, nothing else.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

from sandbox_magic.ansi import sanitize
from sandbox_magic.egress.inside import DATA, END, GONE, HEAD, MOST, OPEN, PIECE, TAKEN, WINDOW
from sandbox_magic.engines.base import Machine
from sandbox_magic.errors import EngineError, InvalidOptions
from sandbox_magic.protocol import STDOUT
from sandbox_magic.transport import Transport, close_in_child, first_line

PORT = 13128  # below those that a system gives away by itself
_SERVED = 2 * MOST  # more than are open: the proxy may still wait for an answer that nobody wants any more
_QUEUED_MAX = 2 * MOST * WINDOW  # bytes; more than an honest program ever leaves unread
_OPEN_SECONDS = 20.0

_CHOOSE = """read -r go
perl -e 'use Socket' 2>/dev/null && exec perl -e "$1" "$3"
python3 -I -c 'import socket' 2>/dev/null && exec python3 -I -c "$2" "$3"
echo missing"""
_REFUSALS = {
    b"missing": "the sandbox must have perl or python3 for it, and this one has neither; images of Debian, Ubuntu and "
    "Python have. Use another image, or network=True (--network), which is all of the network",
    b"loopback": "the loopback of this sandbox is down; use engine='docker'",
}


@cache
def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="ascii")


@dataclass(eq=False, slots=True)
class _Channel:
    """One connection.

    Attributes:
        sock: Our end of a pair of sockets; the proxy has the other.
        held: What the sandbox sent and the proxy has not taken.
        credit: How many bytes the sandbox still takes.
        ended: Our side has sent its last byte.
        ending: The sandbox has; passed on after `held`.
        closed: And that was passed on.
    """

    number: int
    sock: socket.socket
    held: bytearray = field(default_factory=bytearray)
    credit: int = WINDOW
    ended: bool = False
    ending: bool = False
    closed: bool = False

    @property
    def events(self) -> int:
        """What to wait for."""
        read = selectors.EVENT_READ if self.credit and not self.ended else 0
        return read | (selectors.EVENT_WRITE if self.held else 0)


class Relay:
    """The stream and the connections on it; one thread, which ends with the sandbox or with `close`."""

    def __init__(self, machine: Machine, serve: Callable[[socket.socket], None]) -> None:
        """Open it.

        Args:
            machine: The sandbox.
            serve: Called in a thread of its own with each connection, which it closes.

        Raises:
            InvalidOptions: The sandbox has nothing that could listen, or its port is taken.
            EngineError: It did not come up.
        """
        self._serve = serve
        self._places = threading.Semaphore(_SERVED)
        self._channels: dict[int, _Channel] = {}
        self._transport, self._frames = _opened(machine)
        self._wake_in, self._wake_out = (close_in_child(end) for end in socket.socketpair())
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_in, selectors.EVENT_READ)
        self._selector.register(self._transport.fileno(), selectors.EVENT_READ)
        self._owner = os.getpid()
        self._over = False
        self._thread = threading.Thread(target=self._loop, name="sandbox-egress", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether connections get through."""
        return not self._over and self._owner == os.getpid()

    def close(self) -> None:
        """End it with all connections; again is allowed."""
        self._over = True
        with contextlib.suppress(OSError):  # it has ended
            self._wake_out.send(b"x")
        self._thread.join(5)

    # ---- its thread

    def _loop(self) -> None:
        try:
            self._parse()
            self._wait_for()
            while not self._over:
                ready = {key.fd for key, _ in self._selector.select()}
                if self._transport.fileno() in ready and not self._take():
                    return
                for channel in list(self._channels.values()):
                    if channel.sock.fileno() in ready:
                        self._attempt(channel)
                self._wait_for()
        except (OSError, EngineError, ValueError, struct.error):
            return  # the stream is not what we agreed on, or is gone: the next run opens another
        finally:
            self._over = True
            for channel in list(self._channels.values()):
                self._drop(channel, say=False)
            self._selector.close()
            self._transport.close()
            self._wake_in.close()
            self._wake_out.close()

    def _wait_for(self) -> None:
        """Wait for what can now happen."""
        if self._transport.pending() > _QUEUED_MAX:
            raise ValueError  # it makes us answer and does not listen
        writing = selectors.EVENT_WRITE if self._transport.pending() else 0
        self._selector.modify(self._transport.fileno(), selectors.EVENT_READ | writing)
        known = self._selector.get_map()
        for channel in self._channels.values():
            events = channel.events
            if channel.sock in known:
                if not events:
                    self._selector.unregister(channel.sock)
                elif known[channel.sock].events != events:
                    self._selector.modify(channel.sock, events)
            elif events:
                self._selector.register(channel.sock, events)

    def _take(self) -> bool:
        """Take what has arrived; return whether the stream goes on."""
        for stream, data in self._transport.receive(0):
            if stream != STDOUT:
                continue
            if not data:
                return False
            self._frames += data
            self._parse()
        return True

    def _parse(self) -> None:
        frames, at = self._frames, 0
        while len(frames) - at >= HEAD.size:
            kind, number, length = HEAD.unpack_from(frames, at)
            end = at + HEAD.size + length
            if len(frames) < end:
                break
            self._obey(kind, number, frames[at + HEAD.size : end])
            at = end
        self._frames = frames[at:]

    def _obey(self, kind: int, number: int, data: bytes) -> None:
        if kind == OPEN:
            self._open(number)
            return
        channel = self._channels.get(number)
        if channel is None:
            return  # it is gone here, which the other side does not know yet
        if kind == DATA:
            channel.held += data
            if len(channel.held) > WINDOW or channel.ending or channel.closed:
                raise ValueError
        elif kind == END:
            channel.ending = True
        elif kind == TAKEN:
            channel.credit = min(WINDOW, channel.credit + struct.unpack(">I", data)[0])
        elif kind == GONE:
            self._drop(channel, say=False)
            return
        else:
            raise ValueError
        self._attempt(channel)

    def _open(self, number: int) -> None:
        if number in self._channels or len(self._channels) >= MOST:
            raise ValueError
        if not self._places.acquire(blocking=False):
            self._transport.send(HEAD.pack(GONE, number, 0))
            return
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._channels[number] = _Channel(number, close_in_child(ours))
        theirs = close_in_child(theirs)
        work = threading.Thread(target=self._work, args=(theirs,), name="sandbox-egress-client", daemon=True)
        try:
            work.start()
        except RuntimeError:  # this process has as many threads as it may: nobody serves it
            theirs.close()
            self._places.release()

    def _work(self, sock: socket.socket) -> None:
        try:
            self._serve(sock)
        finally:
            self._places.release()

    def _attempt(self, channel: _Channel) -> None:
        """Move what can be moved."""
        try:
            self._flush(channel)
            self._hear(channel)
        except BlockingIOError:
            return
        except OSError:
            self._drop(channel, say=True)

    def _flush(self, channel: _Channel) -> None:
        """Give the proxy what is held for it."""
        if channel.held:
            with contextlib.suppress(BlockingIOError):
                sent = channel.sock.send(channel.held)
                del channel.held[:sent]
                self._tell(TAKEN, channel, struct.pack(">I", sent))
        if channel.ending and not channel.held:
            channel.ending, channel.closed = False, True
            channel.sock.shutdown(socket.SHUT_WR)
            self._finish(channel)

    def _hear(self, channel: _Channel) -> None:
        """Pass on what the proxy says."""
        while channel.credit and not channel.ended and channel.number in self._channels:
            data = channel.sock.recv(min(channel.credit, PIECE))
            if data:
                channel.credit -= len(data)
                self._tell(DATA, channel, data)
            else:
                channel.ended = True
                self._tell(END, channel)
                self._finish(channel)

    def _finish(self, channel: _Channel) -> None:
        if channel.ended and channel.closed:
            self._drop(channel, say=False)

    def _drop(self, channel: _Channel, *, say: bool) -> None:
        del self._channels[channel.number]
        with contextlib.suppress(KeyError, ValueError):  # nothing was waited for
            self._selector.unregister(channel.sock)
        channel.sock.close()
        if say:
            self._tell(GONE, channel)

    def _tell(self, kind: int, channel: _Channel, data: bytes = b"") -> None:
        self._transport.send(HEAD.pack(kind, channel.number, len(data)) + data)


def _opened(machine: Machine) -> tuple[Transport, bytes]:
    """Return the stream to a program that listens, and what it has said since."""
    argv = ["sh", "-c", _CHOOSE, "sandbox-egress", _text("inside.pl"), _text("inside.py"), str(PORT)]
    transport = machine.open(argv, user=machine.aside)
    try:
        transport.send(b"go\n")
        line, rest = first_line(transport, _OPEN_SECONDS)
        if line == b"ready":
            return transport, rest
        if line in _REFUSALS:
            raise InvalidOptions(f"network by name: {_REFUSALS[line]}")
        said = sanitize(line.decode(errors="replace"))
        raise EngineError(f"network by name: the way out of the sandbox did not open: {said or 'no answer'}")
    except BaseException:
        transport.close()
        raise
