"""The proxy, its gate and the stream to it, on the loopback of this machine; no sandbox."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import PIPE, Popen
from typing import ClassVar

import pytest

from sandbox_magic import InvalidOptions
from sandbox_magic.destinations import canonical, destinations
from sandbox_magic.egress import inside, proxy, relay
from sandbox_magic.egress.addresses import refusal
from sandbox_magic.egress.gate import Gate, Refused
from sandbox_magic.egress.hello import UNRECOGNIZED, server_name
from sandbox_magic.egress.proxy import serve
from sandbox_magic.egress.relay import Relay
from sandbox_magic.engines.base import Machine
from sandbox_magic.engines.pipes import PipeTransport
from sandbox_magic.testing.host import until

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


# ---- the gate


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "168.63.129.16"),
        *("169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.168.1.1", "198.18.0.1", "224.0.0.1"),
        *("255.255.255.255", "::", "::1", "::ffff:8.8.8.8", "::ffff:127.0.0.1", "64:ff9b::808:808", "64:ff9b::7f00:1"),
        *("100::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%lo"),
        *("fec0::1", "ff02::1", "::808:808", "203.0.113.9", "192.0.2.1", "240.0.0.1", "3fff::1"),
    ],
)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert refusal(address)


def test_public_addresses_are_not_refused() -> None:
    assert [refusal(address) for address in ("8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "100.128.0.1")] == [""] * 4


def test_the_addresses_of_this_machine_are_refused_whatever_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox_magic.egress.addresses._NETWORKS", [])
    assert refusal("127.0.0.1") == "this machine's own"
    assert refusal("8.8.8.8") == ""


def test_a_second_answer_of_the_resolver_changes_nothing(web: int) -> None:
    """DNS rebinding: the address that was looked at is the one that is connected to; nobody asks again."""
    answers = [["127.0.0.1"], ["8.8.8.8"]]
    asked = []

    def resolver(name: str, port: int) -> list[str]:
        asked.append(name)
        return answers.pop()

    gate = Gate(destinations(f"a.example:{web}"), resolver=resolver)
    connected: list[str] = []
    gate._connect = lambda access, addresses: connected.extend(addresses) or socket.socket()  # type: ignore[method-assign, func-returns-value]
    gate.release(gate.connect("a.example", web)[0])
    assert (asked, connected) == (["a.example"], ["8.8.8.8"])
    with pytest.raises(Refused, match="loopback"):
        gate.connect("a.example", web)
    assert connected == ["8.8.8.8"]


def test_of_several_answers_only_the_public_are_used() -> None:
    gate = Gate(destinations("a.example"), resolver=lambda name, port: ["10.0.0.1", "8.8.8.8", "::1"])
    used: list[str] = []
    gate._connect = lambda access, addresses: used.extend(addresses) or socket.socket()  # type: ignore[method-assign, func-returns-value]
    gate.release(gate.connect("a.example", 80)[0])
    assert used == ["8.8.8.8"]


def test_what_is_denied_wins_and_is_cut(echo: int) -> None:
    gate = Gate(destinations(f"*.example@127.0.0.1:{echo}"))
    for name in ("a.example", "b.example"):
        sock, access = gate.connect(name, echo)
        sock.settimeout(10)
        if name == "b.example":
            kept = sock
        else:
            cut, cut_access = sock, access
    gate.deny(destinations("a.example"))
    assert cut.recv(1) == b"" and "denied" in cut_access.reason
    kept.sendall(b"x")
    assert kept.recv(1) == b"x"
    with pytest.raises(Refused, match="denied"):
        gate.connect("a.example", echo)
    gate.allow(destinations("a.example"))
    gate.release(gate.connect("a.example", echo)[0])
    for sock in (cut, kept):
        gate.release(sock)


def test_what_one_run_was_allowed_ends_with_it(echo: int) -> None:
    gate = Gate()
    gate.for_now(destinations(f"a.example@127.0.0.1:{echo}"), online=False)
    sock, _ = gate.connect("a.example", echo)
    sock.settimeout(10)
    gate.for_now((), online=False)
    assert sock.recv(1) == b""
    gate.release(sock)
    with pytest.raises(Refused, match="not among"):
        gate.connect("a.example", echo)


def test_online_allows_every_public_name_and_no_private_one() -> None:
    gate = Gate(online=True, resolver=lambda name, port: ["10.0.0.1"])
    with pytest.raises(Refused, match="private"):
        gate.connect("a.example", 12345)


# ---- the proxy


@pytest.fixture
def gate(web: int) -> Gate:
    return Gate(destinations(f"a.example@127.0.0.1:{web}"))


def test_a_plain_request_arrives_and_its_answer_comes_back(gate: Gate, web: int) -> None:
    answer = asking(gate)(get(f"a.example:{web}", "/hello?x=1"))
    assert status(answer) == 200 and answer.endswith(b"/hello?x=1")
    (access,) = gate.log()
    assert (access.name, access.port, access.address, access.allowed) == ("a.example", web, "127.0.0.1", True)
    assert access.sent > 50 and access.received > 50


def test_nobody_else_sees_a_password_for_a_proxy(gate: Gate, web: int) -> None:
    headers = ("Proxy-Authorization: Basic c2VjcmV0", "Proxy-Connection: close", "X-Secret: 1", "X-Kept: 2")
    request = get(f"a.example:{web}", "/", *headers).replace(b"Connection: close", b"Connection: close, x-secret")
    assert status(asking(gate)(request)) == 200
    (got,) = Handler.got
    assert got["host"] == f"a.example:{web}" and got["x-kept"] == "2"
    assert not {"proxy-authorization", "proxy-connection", "x-secret"} & set(got)


def test_requests_one_after_another_each_have_their_own_decision(gate: Gate, web: int) -> None:
    keep = get(f"a.example:{web}", "/one").replace(b"Connection: close\r\n", b"")
    answer = asking(gate)(keep + keep.replace(b"/one", b"/two") + get("b.example", "/three"))
    assert answer.count(b"HTTP/1.1 200") == 2 and b"/one" in answer and b"/two" in answer
    assert b"HTTP/1.1 403" in answer
    assert [access.name for access in gate.log()] == ["a.example", "a.example", "b.example"]


def test_a_body_goes_through_whole(gate: Gate, web: int) -> None:
    head = f"POST http://a.example:{web}/ HTTP/1.1\r\nHost: a.example:{web}\r\nContent-Length: {len(BIG)}\r\n"
    assert asking(gate)(head.encode() + b"Connection: close\r\n\r\n" + BIG).endswith(BIG)


def test_who_waits_for_a_100_gets_it(gate: Gate, web: int) -> None:
    head = f"POST http://a.example:{web}/ HTTP/1.1\r\nHost: a.example:{web}\r\nContent-Length: 2\r\n"
    answer = asking(gate)(head.encode() + b"Expect: 100-continue\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 100")


def test_a_tunnel_carries_everything_both_ways(echo: int) -> None:
    gate = Gate(destinations(f"a.example@127.0.0.1:{echo}"))
    answer = asking(gate)(connect(f"a.example:{echo}") + BIG)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert status(head) == 200 and body == BIG
    (access,) = gate.log()
    assert (access.sent, access.received) == (len(BIG), len(BIG))


def test_a_tunnel_that_one_side_has_left_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "_LEFT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        gate = Gate(destinations(f"a.example@127.0.0.1:{port}"))
        for request in (connect(f"a.example:{port}"), get(f"a.example:{port}")):
            asking(gate)(request)  # waits for the thread's end
        assert [access.allowed for access in gate.log()] == [True, True] and not gate._live


# ---- what TLS asks for


def greeting(name: str | None) -> bytes:
    """What Python's TLS says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.check_hostname = False
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def in_records(hello: bytes, size: int) -> bytes:
    """The same greeting in pieces."""
    pieces = [hello[at : at + size] for at in range(5, len(hello), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2) + piece for piece in pieces)


def test_the_server_that_tls_asks_for_is_read() -> None:
    hello = greeting("A.example")
    assert server_name(hello) == server_name(hello + b"more") == server_name(in_records(hello, 100)) == "a.example"
    assert {server_name(hello[:length]) for length in range(1, len(hello))} == {None}
    assert server_name(greeting(None)) == server_name(b"SSH-2.0") == ""


@pytest.mark.parametrize(
    "data",
    [
        in_records(greeting("a.example"), 10),
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03",
        greeting("a.example")[:200] + b"\xff" * 400,
        in_records(greeting("a.example"), 300)[:305] + b"\x14" + in_records(greeting("a.example"), 300)[306:],
    ],
)
def test_what_only_begins_as_tls_asks_for_no_host(data: bytes) -> None:
    name = server_name(data)
    assert name and not canonical(name)


@pytest.mark.parametrize(
    ("asked", "passes"), [("a.example", True), ("x.b.example", True), ("c.example", False), (None, True)]
)
def test_a_tunnel_asks_for_allowed_names_only(echo: int, asked: str | None, passes: bool) -> None:
    gate = Gate(destinations([f"a.example@127.0.0.1:{echo}", f"*.b.example:{echo}"]))
    hello = greeting(asked)
    _, _, body = asking(gate)(connect(f"a.example:{echo}") + hello).partition(b"\r\n\r\n")
    assert body == (hello if passes else UNRECOGNIZED)
    (access,) = gate.log()
    assert (access.allowed, access.sent) == (passes, len(hello) * passes)
    assert passes or "c.example" in access.reason


def test_a_greeting_may_come_in_pieces(echo: int) -> None:
    gate = Gate(destinations(f"a.example@127.0.0.1:{echo}"))
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=serve, args=(theirs, gate), daemon=True)
    thread.start()
    hello, answer = greeting("a.example"), b""
    with ours:
        ours.settimeout(20)
        ours.sendall(connect(f"a.example:{echo}"))
        while b"\r\n\r\n" not in answer:
            answer += ours.recv(1 << 16)
        for at in range(0, len(hello), 50):
            ours.sendall(hello[at : at + 50])
            time.sleep(0.01)
        while not answer.endswith(hello):
            piece = ours.recv(1 << 16)
            assert piece, answer
            answer += piece
    thread.join(20)
    assert not thread.is_alive()


# ---- the stream to it


class HostMachine(Machine):
    """A "sandbox" that is this machine, with the programs of one folder."""

    id = "host"

    def __init__(self, path: str) -> None:
        self._path = path
        self.processes: list[Popen[bytes]] = []

    def open(
        self, argv: Sequence[str], *, user: str | None = None, env: Mapping[str, str] | None = None
    ) -> PipeTransport:
        process = Popen(argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, env={"PATH": self._path})
        self.processes.append(process)
        fds = [os.dup(stream.fileno()) for stream in (process.stdin, process.stdout, process.stderr) if stream]
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream is not None
            stream.close()
        return PipeTransport(*fds, exit_code=process.poll)

    def describe(self) -> dict[str, object]:
        return {}

    def alive(self) -> bool:
        return True

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that is free here, and not one that the system gives away: several may run these tests at a time."""
    for candidate in range(20_000 + os.getpid() % 1000 * 10, 32_000):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", candidate)):
            monkeypatch.setattr(relay, "PORT", candidate)
            return
    raise AssertionError("no port is free")


@pytest.fixture(params=["perl", "python3"])
def machine(port: None, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[HostMachine]:
    """One for each program that may be found inside."""
    programs = {"perl": shutil.which("perl"), "python3": sys.executable}
    for name, path in (("sh", "/bin/sh"), (request.param, programs[request.param])):
        assert path, f"{name} is missing"
        (tmp_path / name).symlink_to(path)
    made = HostMachine(str(tmp_path))
    yield made
    made.close()


@contextlib.contextmanager
def relayed(machine: HostMachine, gate: Gate) -> Iterator[Relay]:
    opened = Relay(machine, lambda sock: serve(sock, gate))
    try:
        yield opened
    finally:
        opened.close()
        gate.hang_up()
        until("the thread ends", lambda: not opened._thread.is_alive())


def through(data: bytes, *, slowly: bool = False) -> bytes:
    """Send bytes to the port that the relay listens on and return all that comes back."""
    with socket.create_connection(("127.0.0.1", relay.PORT), timeout=30) as sock:
        sender = threading.Thread(target=lambda: (sock.sendall(data), sock.shutdown(socket.SHUT_WR)))
        sender.start()
        if slowly:
            time.sleep(0.5)
        answer = b""
        while piece := sock.recv(1 << 16):
            answer += piece
        sender.join()
        return answer


def test_what_goes_through_the_stream_is_whole(machine: HostMachine, echo: int) -> None:
    gate = Gate(destinations(f"a.example@127.0.0.1:{echo}"))
    with relayed(machine, gate):
        for slowly in (False, True):
            answer = through(connect(f"a.example:{echo}") + BIG, slowly=slowly)
            assert answer.partition(b"\r\n\r\n")[2] == BIG
        assert status(through(connect("b.example:443"))) == 403


def test_one_that_does_not_read_holds_nobody_up(machine: HostMachine, echo: int) -> None:
    gate = Gate(destinations(f"a.example@127.0.0.1:{echo}"))
    with relayed(machine, gate), socket.create_connection(("127.0.0.1", relay.PORT), timeout=30) as stuck:
        stuck.sendall(connect(f"a.example:{echo}"))
        stuck.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:  # until every buffer on the way there and back is full
                stuck.send(BIG)
        assert status(through(connect(f"a.example:{echo}"))) == 200


def test_many_at_once(machine: HostMachine, echo: int) -> None:
    gate = Gate(destinations(f"a.example@127.0.0.1:{echo}"))
    answers: list[bytes] = []
    with relayed(machine, gate):
        request = connect(f"a.example:{echo}") + b"x" * 50_000
        threads = [threading.Thread(target=lambda: answers.append(through(request))) for _ in range(2 * inside.MOST)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert [answer.count(b"x") for answer in answers] == [50_000] * (2 * inside.MOST)


def test_a_relay_that_was_killed_is_seen(machine: HostMachine) -> None:
    with relayed(machine, Gate()) as opened:
        assert opened.alive
        machine.close()
        until("it is seen", lambda: not opened.alive)


def test_who_leaves_before_the_answer_does_not_pile_up(machine: HostMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that never answers: what waits for it is bounded, makes room again, and ends with the sandbox."""
    monkeypatch.setattr(proxy, "_LEFT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as silent:
        port = silent.getsockname()[1]
        gate = Gate(destinations(f"a.example@127.0.0.1:{port}"))
        with relayed(machine, gate):
            for _ in range(3 * inside.MOST):
                with socket.create_connection(("127.0.0.1", relay.PORT), timeout=30) as sock:
                    sock.sendall(get(f"a.example:{port}"))
                threads = [thread for thread in threading.enumerate() if thread.name == "sandbox-egress-client"]
                assert len(threads) <= 2 * inside.MOST
            until("each had its turn", lambda: len(gate.log()) == 3 * inside.MOST, 60)
        until("they end", lambda: all(thread.name != "sandbox-egress-client" for thread in threading.enumerate()))


def test_a_sandbox_without_what_it_takes_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "sh").symlink_to("/bin/sh")
    machine = HostMachine(str(tmp_path))
    with pytest.raises(InvalidOptions, match="perl or python3"):
        Relay(machine, lambda sock: None)
    machine.close()


def saying(frames: bytes, folder: Path) -> HostMachine:
    """Return a "sandbox" whose program says these frames and then listens to nothing."""
    (folder / "frames").write_bytes(frames)
    (folder / "sh").write_text(f"#!/bin/sh\nread -r go; echo ready; /bin/cat {folder}/frames; exec /bin/sleep 100\n")
    (folder / "sh").chmod(0o755)
    machine = HostMachine(str(folder))
    machine.open = lambda argv, **_: HostMachine.open(machine, [str(folder / "sh")])  # type: ignore[method-assign]
    return machine


@pytest.mark.parametrize(
    "frames",
    [
        inside.HEAD.pack(inside.OPEN, 1, 0) * 2,
        b"".join(inside.HEAD.pack(inside.OPEN, number, 0) for number in range(inside.MOST + 1)),
        inside.HEAD.pack(inside.OPEN, 1, 0) + inside.HEAD.pack(77, 1, 0),
        inside.HEAD.pack(inside.OPEN, 1, 0) + inside.HEAD.pack(inside.TAKEN, 1, 1) + b"x",
        inside.HEAD.pack(inside.OPEN, 1, 0) + (inside.HEAD.pack(inside.DATA, 1, 60000) + bytes(60000)) * 200,
        inside.HEAD.pack(inside.OPEN, 1, 0) + inside.HEAD.pack(inside.END, 1, 0)
        + inside.HEAD.pack(inside.DATA, 1, 1) + b"x",
    ],
)  # fmt: skip
def test_a_hostile_stream_costs_itself_only(tmp_path: Path, frames: bytes) -> None:
    """What speaks for the sandbox breaks the rules: the relay ends, the memory is bounded, nothing is raised here."""
    served: list[socket.socket] = []
    machine = saying(frames, tmp_path)
    opened = Relay(machine, served.append)
    until("it has ended", lambda: not opened._thread.is_alive())
    assert not opened.alive and not opened._channels
    for sock in served:
        sock.close()
    machine.close()


def test_one_that_makes_us_answer_and_does_not_listen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_QUEUED_MAX", 1000)
    monkeypatch.setattr(relay, "_SERVED", 1)
    frames = inside.HEAD.pack(inside.OPEN, 1, 0) + inside.HEAD.pack(inside.GONE, 1, 0)
    machine = saying(frames * 50_000, tmp_path)  # all but the first are turned away, in 7 bytes
    held: list[socket.socket] = []
    release = threading.Event()

    def serve(sock: socket.socket) -> None:
        held.append(sock)
        release.wait(60)

    opened = Relay(machine, serve)
    until("it has ended", lambda: not opened._thread.is_alive())
    release.set()
    for sock in held:
        sock.close()
    machine.close()
