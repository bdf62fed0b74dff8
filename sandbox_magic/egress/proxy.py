"""The HTTP proxy that a sandbox talks to: one client connection, in a thread of its own.

CONNECT makes a tunnel; any other request must name its target in absolute form (``GET http://NAME/``). h11 parses both
sides, strictly, and writes each message anew: nothing is passed on that it has not understood.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Iterable

import h11

from sandbox_magic.egress import hello
from sandbox_magic.egress.gate import Access, Gate, Refused
from sandbox_magic.egress.splice import splice

_HEAD_MAX = 64 << 10  # bytes of a request line with its headers, and of an answer's
_HEAD_SECONDS = 20.0  # for a request's head, once it has begun
_IDLE_SECONDS = 600.0
_LEFT_SECONDS = 20.0  # without a byte, once one side has ended: who has left cannot be told from who has said all
_PIECE = 1 << 16

_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^:@/?#\[\]\s]+)(?::(?P<port>\d{1,5}))?")
_ABSOLUTE = re.compile(r"http://(?P<authority>[^/?#]*)(?P<path>/[^#]*)?", re.IGNORECASE)
# What concerns one connection only, ours with the client; with the password for a proxy, which nobody else may see.
_OURS = {
    *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"),
    *(b"te", b"trailer", b"upgrade", b"expect"),
}


def serve(client: socket.socket, gate: Gate) -> None:
    """Answer a client until it or we are done, and close the connection."""
    with client, contextlib.suppress(OSError, h11.ProtocolError):  # it is gone, or was told what is wrong
        conversation = _Conversation(client, gate)
        while conversation.answer():
            pass


class _Conversation:
    """The requests of one client connection, one after another."""

    def __init__(self, client: socket.socket, gate: Gate) -> None:
        self._client = client
        self._gate = gate
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD_MAX)

    def answer(self) -> bool:
        """Carry out one request; return whether another may follow."""
        try:
            request = self._request()
            if request is None:
                return False
            if request.method == b"CONNECT":
                self._tunnel(request)
                return False
            self._forward(request)
        except Refused as refused:
            self._refuse(refused)
            return False
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    # ---- the client's side

    def _request(self) -> h11.Request | None:
        """Return the next request; `None` if none comes."""
        deadline, begun = time.monotonic() + _IDLE_SECONDS, False
        problem: Refused
        try:
            while True:
                match self._http.next_event():
                    case h11.Request() as request:
                        return request
                    case h11.NEED_DATA:
                        if not begun and self._http.trailing_data[0]:
                            deadline, begun = time.monotonic() + _HEAD_SECONDS, True
                        self._http.receive_data(self._receive(deadline - time.monotonic()))
                    case _:
                        return None
        except TimeoutError:
            if not begun:
                return None
            problem = Refused("the request did not come in time", 408)
        except h11.RemoteProtocolError as error:
            problem = Refused(f"malformed request: {str(error)[:200]}", error.error_status_hint)
        self._gate.note("?", 0, str(problem))
        raise problem

    def _receive(self, seconds: float) -> bytes:
        if seconds <= 0:
            raise TimeoutError
        self._client.settimeout(seconds)
        return self._client.recv(_PIECE)

    def _send(self, event: h11.Event) -> None:
        self._client.settimeout(_IDLE_SECONDS)
        self._client.sendall(self._http.send(event) or b"")

    def _refuse(self, refused: Refused) -> None:
        """Say why; the connection ends after it."""
        if self._http.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
            return
        text = f"sandbox_magic: {refused}\n".encode(errors="replace")
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(text)))]
        headers.append(("Connection", "close"))
        self._send(h11.Response(status_code=refused.status, reason=b"refused by sandbox_magic", headers=headers))
        self._send(h11.Data(data=text))
        self._send(h11.EndOfMessage())
        with contextlib.suppress(OSError):  # what it may still send must not make its system drop our answer
            self._client.shutdown(socket.SHUT_WR)
            deadline = time.monotonic() + 1
            while self._receive(deadline - time.monotonic()):
                pass

    def _checked(self, request: h11.Request, authority: str, default: int | None) -> tuple[str, int]:
        """Return the host and port of a request that does not contradict itself."""
        host, port = _split(authority, default)
        problem = "" if port else f"{authority[:100]!r} is not a host with its port"
        names = [name for name, _ in request.headers]
        if b"content-length" in names and b"transfer-encoding" in names:
            problem = problem or "the request has two lengths"
        if request.http_version not in {b"1.0", b"1.1"}:
            problem = problem or "the request is not of HTTP/1.1"
        for name, value in request.headers:
            if name == b"host" and _split(value.decode("ascii", "replace"), port or None) != (host, port):
                problem = problem or f"its Host header says {value[:100].decode('ascii', 'replace')!r}"
        if problem:
            self._gate.note(host, port, problem)
            raise Refused(problem, 400)
        return host, port

    # ---- CONNECT

    def _tunnel(self, request: h11.Request) -> None:
        host, port = self._checked(request, request.target.decode("ascii", "replace"), None)
        if any(name in {b"content-length", b"transfer-encoding"} for name, _ in request.headers):
            self._gate.note(host, port, "a CONNECT with a body")
            raise Refused("a CONNECT with a body", 400)
        server, access = self._gate.connect(host, port)
        try:
            while self._http.next_event() is not h11.PAUSED:  # the end of the request, which has no body
                pass
            self._send(h11.Response(status_code=200, headers=[], reason="Connection established"))
            first = self._http.trailing_data[0]
            splice(
                self._client,
                server,
                sent=lambda size: _add(access, sent=size),
                received=lambda size: _add(access, received=size),
                first=first,
                admit=lambda data: self._greets(access, data),
                idle=_IDLE_SECONDS,
                left=_LEFT_SECONDS,
            )
        finally:
            self._gate.release(server)

    def _greets(self, access: Access, data: bytes) -> bool:
        """Whether what comes first is whole; behind an address that is allowed there may be sites that are not."""
        try:
            name = hello.server_name(data)
            if name:
                self._gate.greet(access, name)
        except Refused:
            with contextlib.suppress(OSError):
                self._client.send(hello.UNRECOGNIZED)
            raise
        return name is not None

    # ---- plain HTTP

    def _forward(self, request: h11.Request) -> None:
        match = _ABSOLUTE.fullmatch(request.target.decode("ascii", "replace"))
        if not match:
            self._gate.note("?", 0, "this is a proxy: it takes CONNECT and http:// targets")
            raise Refused("this is a proxy: it takes CONNECT and http:// targets", 400)
        host, port = self._checked(request, match["authority"], 80)
        server, access = self._gate.connect(host, port)
        try:
            _Exchange(server, access).run(self, request, match["path"] or "/", match["authority"])
        except h11.RemoteProtocolError as error:
            access.reason += f"; its answer is malformed: {str(error)[:200]}"
            raise Refused(f"{host} answered what is not HTTP: {error}", 502) from None
        finally:
            self._gate.release(server)

    def body(self) -> bytes | None:
        """Return the next piece of the request's body; `None` at its end."""
        while True:
            if self._http.they_are_waiting_for_100_continue:
                self._send(h11.InformationalResponse(status_code=100, headers=[]))
            match self._http.next_event():
                case h11.Data(data=data):
                    return bytes(data)
                case h11.EndOfMessage():
                    return None
                case h11.ConnectionClosed():
                    raise ConnectionError
                case _:
                    self._http.receive_data(self._receive(_IDLE_SECONDS))

    def ended(self) -> bool:
        """Whether the client sends no more."""
        self._client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            return not self._client.recv(1, socket.MSG_PEEK)
        return False

    def pass_on(self, event: h11.Event) -> None:
        """Send the client a part of the answer."""
        if isinstance(event, h11.Response):
            event = h11.Response(status_code=event.status_code, reason=event.reason, headers=_passed(event.headers))
        elif isinstance(event, h11.EndOfMessage):
            event = h11.EndOfMessage()
        self._send(event)


class _Exchange:
    """One request to a server, on a connection of its own, so that no answer can be taken for another's."""

    def __init__(self, server: socket.socket, access: Access) -> None:
        self._server = server
        self._access = access
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_MAX)
        server.settimeout(_LEFT_SECONDS)

    def run(self, client: _Conversation, request: h11.Request, path: str, authority: str) -> None:
        """Send the request and pass the answer on."""
        headers = [(name, value) for name, value in _passed(request.headers) if name != b"host"]
        headers = [(b"host", authority.encode()), *headers, (b"connection", b"close")]
        self._send(h11.Request(method=request.method, target=path, headers=headers))
        while (data := client.body()) is not None:
            self._send(h11.Data(data=data))
        self._send(h11.EndOfMessage())
        while True:
            match self._http.next_event():
                case h11.NEED_DATA:
                    self._http.receive_data(self._receive(client))
                case h11.InformationalResponse():
                    pass
                case h11.EndOfMessage() as event:
                    client.pass_on(event)
                    return
                case h11.Response() | h11.Data() as event:
                    client.pass_on(event)
                case _:
                    raise ConnectionError

    def _receive(self, client: _Conversation) -> bytes:
        deadline = time.monotonic() + _IDLE_SECONDS
        while True:
            try:
                data = self._server.recv(_PIECE)
            except TimeoutError:
                if client.ended() or time.monotonic() > deadline:
                    raise
            else:
                _add(self._access, received=len(data))
                return data

    def _send(self, event: h11.Event) -> None:
        data = self._http.send(event) or b""
        self._server.sendall(data)
        _add(self._access, sent=len(data))


def _passed(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers that go from one connection to the other."""
    headers = list(headers)
    named = {word.strip().lower() for name, value in headers if name == b"connection" for word in value.split(b",")}
    return [(name, value) for name, value in headers if name not in _OURS and name not in named]


def _split(authority: str, default: int | None) -> tuple[str, int]:
    """Return host and port, in the form in which they are compared; port 0 if it is not a host with its port."""
    match = _AUTHORITY.fullmatch(authority)
    if not match:
        return authority[:253].lower(), 0
    port = int(match["port"]) if match["port"] else default or 0
    return match["host"].lower().removesuffix("."), port if port < 1 << 16 else 0


def _add(access: Access, *, sent: int = 0, received: int = 0) -> None:
    access.sent += sent
    access.received += received
