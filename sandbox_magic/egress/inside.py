"""The near end of egress in a sandbox, where there is Python 3 and no perl: it runs there, alone, from its text.

It listens on the sandbox's loopback and carries each connection over stdin and stdout, in frames: kind (1 byte), number
of the connection (4), length (2), data. Kinds: 1 a connection was opened, 2 data, 3 the sender sends no more, 4 so many
bytes were taken, 5 the connection is gone. Neither side sends more than a window that the other has not yet taken.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import struct
import sys
from typing import Any

WINDOW, PIECE, MOST = 262144, 32768, 64
OPEN, DATA, END, TAKEN, GONE = 1, 2, 3, 4, 5
HEAD = struct.Struct(">BIH")


class Client:
    """A connection of a program in the sandbox."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.held = b""
        self.credit = WINDOW
        self.ended = False  # it sends no more
        self.ending = False  # and shall hear no more, after what is held
        self.closed = False  # and does not


class Relay:
    """All of them."""

    def __init__(self, port: int) -> None:
        self.door = socket.socket()
        self.door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.door.bind(("127.0.0.1", port))
        self.door.listen(128)
        with socket.create_connection(("127.0.0.1", port)):  # a loopback that is down lets us bind, but nobody connect
            self.door.accept()[0].close()
        self.clients: dict[int, Client] = {}
        self.last = 0
        self.heard = b""

    def tell(self, kind: int, number: int, data: bytes = b"") -> None:
        """Send a frame."""
        frame = HEAD.pack(kind, number, len(data)) + data
        while frame:
            frame = frame[os.write(1, frame) :]

    def gone(self, number: int, *, quiet: bool = False) -> None:
        """Forget a connection."""
        self.clients.pop(number).sock.close()
        if not quiet:
            self.tell(GONE, number)

    def flush(self, number: int, client: Client) -> None:
        """Give a program what is held for it."""
        if client.held:
            try:
                sent = client.sock.send(client.held)
            except BlockingIOError:
                return
            client.held = client.held[sent:]
            self.tell(TAKEN, number, struct.pack(">I", sent))
        if client.ending and not client.held:
            client.ending, client.closed = False, True
            client.sock.shutdown(socket.SHUT_WR)
            if client.ended:
                self.gone(number, quiet=True)

    def hear(self, number: int, client: Client) -> None:
        """Pass on what a program says."""
        try:
            data = client.sock.recv(min(client.credit, PIECE))
        except BlockingIOError:
            return
        if data:
            client.credit -= len(data)
            self.tell(DATA, number, data)
            return
        client.ended = True
        self.tell(END, number)
        if client.closed:
            self.gone(number, quiet=True)

    def obey(self, kind: int, number: int, data: bytes) -> None:
        """Carry out a frame."""
        client = self.clients.get(number)
        if client is None:
            return
        if kind == DATA:
            client.held += data
        elif kind == END:
            client.ending = True
        elif kind == TAKEN:
            client.credit += struct.unpack(">I", data)[0]
        elif kind == GONE:
            self.gone(number, quiet=True)
            return
        if kind in (DATA, END):
            self.attempt(self.flush, number, client)

    def attempt(self, work, number: int, client: Client) -> None:  # type: ignore[no-untyped-def] # no import only for this
        """Do something with a connection, which may have failed."""
        try:
            work(number, client)
        except OSError:
            if number in self.clients:
                self.gone(number)

    def turn(self) -> None:
        """Wait for something to do, and do it."""
        reads: list[Any] = [0, self.door] if len(self.clients) < MOST else [0]
        reads += [client.sock for client in self.clients.values() if client.credit and not client.ended]
        writes = [client.sock for client in self.clients.values() if client.held]
        reads, writes, _ = select.select(reads, writes, [])
        for number, client in list(self.clients.items()):
            if client.sock in writes:
                self.attempt(self.flush, number, client)
            if number in self.clients and client.sock in reads:
                self.attempt(self.hear, number, client)
        if self.door in reads:
            sock = self.door.accept()[0]
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.last += 1
            self.clients[self.last] = Client(sock)
            self.tell(OPEN, self.last)
        if 0 in reads:
            self.listen()

    def listen(self) -> None:
        """Take frames."""
        data = os.read(0, 65536)
        if not data:
            raise SystemExit
        self.heard += data
        while len(self.heard) >= HEAD.size:
            kind, number, length = HEAD.unpack_from(self.heard)
            if len(self.heard) < HEAD.size + length:
                return
            data, self.heard = self.heard[HEAD.size : HEAD.size + length], self.heard[HEAD.size + length :]
            self.obey(kind, number, data)


def main() -> None:
    """Listen until stdin ends."""
    for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    try:
        relay = Relay(int(sys.argv[1]))
    except OSError as error:
        down = error.errno == errno.ENETUNREACH
        sys.stdout.write("loopback\n" if down else "port {} is taken: {}\n".format(sys.argv[1], error))  # noqa: UP032
        return
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        relay.turn()


if __name__ == "__main__":
    main()
