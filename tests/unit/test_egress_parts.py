"""The proxy and its gate, on the loopback of this machine; no sandbox."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time

import pytest
from proxy_client import BIG, Handler, asking, connect, get, status

from sandbox_magic.destinations import canonical, destinations
from sandbox_magic.egress import proxy
from sandbox_magic.egress.addresses import refusal
from sandbox_magic.egress.gate import Gate, Refused
from sandbox_magic.egress.hello import UNRECOGNIZED, server_name
from sandbox_magic.egress.proxy import serve

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
