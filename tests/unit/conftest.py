"""Fixtures of more than one module: a front end, and servers on the loopback."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from typing import Any

import pytest
from front_end import Begin, Clock, FrontEnd
from proxy_client import Handler

from sandbox_magic.jupyter.view import CellView


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def begin(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Begin:
    """Return a function, as pytest puts its own `sys.stdout` in place between a test and its fixtures."""

    def begin(**options: Any) -> tuple[CellView, FrontEnd]:
        stdout = FrontEnd(clock)
        monkeypatch.setattr(sys, "stdout", stdout)
        return CellView(clock=clock, **options), stdout

    return begin


@pytest.fixture
def web() -> Iterator[int]:
    """The port of a web server on 127.0.0.1."""
    Handler.got.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets, until its client ends."""

    def work(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            while data := sock.recv(1 << 16):
                sock.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=work, args=(listener.accept()[0],), daemon=True).start()

    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
