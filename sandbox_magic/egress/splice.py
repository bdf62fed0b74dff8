"""Bytes between two sockets, both ways, until both have ended; bounded memory, and each end passed on by itself."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable

_PIECE = 1 << 16

Count = Callable[[int], object]
Admit = Callable[[bytes], bool]


class _Way:
    """One direction."""

    def __init__(
        self, source: socket.socket, target: socket.socket, count: Count, first: bytes = b"", admit: Admit | None = None
    ) -> None:
        self.source, self.target, self.count = source, target, count
        self.held = first
        self.admit = None if first and admit and admit(first) else admit
        self.ended = False  # the source has
        self.over = False  # and the target knows

    def wants(self, sock: socket.socket) -> int:
        if self.over:
            return 0
        if self.held and not self.admit:
            return select.POLLOUT if sock is self.target else 0
        return select.POLLIN if sock is self.source and not self.ended else 0

    def move(self) -> None:
        """Do what can be done now."""
        if (self.admit or not self.held) and not self.ended:
            try:
                data = self.source.recv(_PIECE)
            except BlockingIOError:
                return
            self.held += data
            self.ended = not data
            if self.admit and data and not self.admit(self.held):
                return
            self.admit = None
        if self.held:
            try:
                sent = self.target.send(self.held)
            except BlockingIOError:
                return
            self.count(sent)
            self.held = self.held[sent:]
        if self.ended and not self.held and not self.over:
            self.over = True
            self.target.shutdown(socket.SHUT_WR)


def splice(
    client: socket.socket,
    server: socket.socket,
    *,
    sent: Count,
    received: Count,
    first: bytes,
    admit: Admit,
    idle: float,
    left: float,
) -> None:
    """Carry bytes until both sides have ended, one of them fails, or nothing moves for a time.

    Args:
        client: The sandbox's side.
        server: The other.
        sent: Called with the number of bytes that went to the server.
        received: Called with the number of bytes that went to the client.
        first: What the client has sent already.
        admit: Called with all that the client has said, until it says whether that may go on; what it raises ends both.
        idle: Seconds without a byte.
        left: The same once one side has ended.
    """
    ways = [_Way(client, server, sent, first, admit), _Way(server, client, received)]
    for sock in (client, server):
        sock.setblocking(False)
    try:
        last = time.monotonic()
        while not all(way.over for way in ways):
            wait = last + (left if any(way.over for way in ways) else idle) - time.monotonic()
            if wait <= 0:
                return
            poll = select.poll()
            for sock in (client, server):
                if events := ways[0].wants(sock) | ways[1].wants(sock):
                    poll.register(sock, events)
            if poll.poll(wait * 1000):
                last = time.monotonic()
                for way in ways:
                    way.move()
    except OSError:
        return  # a side has failed: the caller closes both
