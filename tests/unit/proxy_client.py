"""A web server, and what asks a proxy."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import ClassVar

from sandbox_magic.egress.gate import Gate
from sandbox_magic.egress.proxy import serve

BIG = bytes(range(256)) * 8192  # 2 MB, more than a window and every buffer on the way


class Handler(BaseHTTPRequestHandler):
    """Says what was asked; keeps what it got."""

    protocol_version = "HTTP/1.1"
    got: ClassVar[list[dict[str, str]]] = []

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        self.got.append({"line": self.requestline, **{name.lower(): value for name, value in self.headers.items()}})
        answer = BIG if self.path == "/big" else body or self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.send_header("Keep-Alive", "timeout=5")
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET  # noqa: N815 # the server looks for these names

    def log_message(self, *args: object) -> None:
        pass


Ask = Callable[[bytes], bytes]


def asking(gate: Gate) -> Ask:
    """Return a function that sends bytes to a proxy with this gate, ends, and returns all that comes back."""

    def ask(data: bytes) -> bytes:
        ours, theirs = socket.socketpair()
        thread = threading.Thread(target=serve, args=(theirs, gate), daemon=True)
        thread.start()
        ours.settimeout(20)
        answer = b""
        with ours, contextlib.suppress(ConnectionError):
            ours.sendall(data)
            ours.shutdown(socket.SHUT_WR)
            while piece := ours.recv(1 << 16):
                answer += piece
        thread.join(20)
        assert not thread.is_alive()
        return answer

    return ask


def get(host: str, path: str = "/hello", *headers: str, host_header: str | None = None) -> bytes:
    lines = [f"GET http://{host}{path} HTTP/1.1", f"Host: {host if host_header is None else host_header}", *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode()


def connect(host: str, *headers: str) -> bytes:
    return "\r\n".join([f"CONNECT {host} HTTP/1.1", f"Host: {host}", *headers, "", ""]).encode()


def status(answer: bytes) -> int:
    return int(answer.split()[1]) if answer else 0
