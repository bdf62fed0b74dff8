"""Out of a sandbox that may reach two names: attempts from inside real ones, to reach more than these.

The names lead to web servers of this test on the loopback of this machine, by the one form that allows such an address
(``NAME@ADDRESS``). A third server there is what must not be reached, by any name, number or trick.
"""

from __future__ import annotations

import base64
import contextlib
import re
import shlex
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tries import Breach

from sandbox_magic import Sandbox
from sandbox_magic.egress import proxy
from sandbox_magic.egress.gate import Gate
from sandbox_magic.egress.relay import PORT
from sandbox_magic.testing.host import until

PLACES = [
    {"engine": "docker", "profile": "standard"},
    {"engine": "docker", "profile": "sealed"},
    {"engine": "podman", "profile": "standard"},
    {"engine": "bubblewrap", "profile": "standard"},
]
# Sends its stdin to HOST PORT and prints what comes back; perl is in every image of Debian, and on this machine.
CLIENT = r"""perl -MIO::Socket::INET -e '
$s = IO::Socket::INET->new(PeerAddr => $ARGV[0], PeerPort => $ARGV[1], Timeout => 5) or die "no connection: $@";
$SIG{PIPE} = "IGNORE"; local $/; print $s scalar <STDIN>; $s->flush; alarm 60; print while sysread $s, $_, 65536;' """


@dataclass
class Site:
    """A web server that keeps what it was sent; it answers with its name."""

    name: str
    heard: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self.listener.accept()[0],), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            sock.settimeout(30)
            data = b""
            while b"\r\n\r\n" not in data and (piece := sock.recv(1 << 16)):
                data += piece
                self.heard.append(data)
            body = self.name.encode()
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@dataclass
class Scene:
    """A sandbox and the three servers."""

    box: Sandbox
    allowed: Site
    other: Site
    secret: Site

    @property
    def host(self) -> str:
        """The allowed name with its port."""
        return f"allowed.example:{self.allowed.port}"

    def send(self, data: bytes | str, host: str = "127.0.0.1", port: int = PORT) -> str:
        """Send bytes from inside, to the proxy if nothing else is said; return what comes back."""
        given = data.encode("latin-1") if isinstance(data, str) else data
        result = self.box.run(f"{CLIENT} {shlex.quote(host)} {port}", stdin=given, timeout=90)
        if self.secret.name in result.output or self.secret.heard:
            raise Breach(result.output)
        return result.output

    def refused(self, data: bytes | str, status: int = 403) -> None:
        """Send what must be refused with this status, and stand in the log as refused."""
        before = len(self.box.network_log)
        answer = self.send(data)
        assert answer.startswith(f"HTTP/1.1 {status} "), answer[:300]
        assert [access.allowed for access in self.box.network_log[before:]] == [False]


@pytest.fixture(scope="module", params=PLACES, ids=lambda place: "-".join(place.values()))
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    sites = [Site("the allowed site"), Site("the other site"), Site("the secret")]
    allowed, other, _ = sites
    names = [f"allowed.example@127.0.0.1:{allowed.port}", f"*.other.example@127.0.0.1:{other.port}", "localhost"]
    with Sandbox(network=names, **request.param) as box:
        yield Scene(box, *sites)
    for site in sites:
        site.close()


def get(host: str, header: str | None = None, *more: str, path: str = "/") -> str:
    """Return a request of a program that uses a proxy."""
    lines = [f"GET http://{host}{path} HTTP/1.1", f"Host: {host if header is None else header}", *more]
    return "\r\n".join([*lines, "Connection: close", "", ""])


def connect(host: str, header: str | None = None, *more: str) -> str:
    """Return a request for a tunnel."""
    return "\r\n".join([f"CONNECT {host} HTTP/1.1", f"Host: {host if header is None else header}", *more, "", ""])


def attack(what: str, **how: Any) -> pytest.MarkDecorator:
    return pytest.mark.attack("egress by name", what, **how)


def test_what_is_allowed_works(scene: Scene) -> None:
    """Else every refusal below means nothing."""
    assert scene.send(get(scene.host)).endswith("the allowed site")
    answer = scene.send(connect(f"a.other.example:{scene.other.port}") + "GET / HTTP/1.1\r\n\r\n")
    assert answer.startswith("HTTP/1.1 200 ") and answer.endswith("the other site")
    assert [access.allowed for access in scene.box.network_log[-2:]] == [True, True]


@attack("another name than those that were allowed")
def test_other_names(scene: Scene) -> None:
    for name in (
        *("secret.example", "allowed.example.secret.example", "xallowed.example", "allowed-example", "other.example"),
        *("allowed.example.", "example", "*.other.example", "allowed.example%00.secret", "allowed.exam%70le"),
    ):
        port = scene.secret.port
        status = 400 if "%" in name or "*" in name else 403
        for request in (get(f"{name}:{port}"), connect(f"{name}:{port}")):
            answer = scene.send(request)
            assert answer[9:12] in {"403", "400"}, (name, status, answer[:200])


@attack("another port of an allowed name")
def test_other_ports(scene: Scene) -> None:
    for port in (22, 80, 443, PORT, scene.secret.port):
        scene.refused(connect(f"allowed.example:{port}"))
    scene.refused(get("allowed.example"))
    for port in ("0", "65536", "99999", "x", "-1"):
        assert scene.send(connect(f"allowed.example:{port}"))[9:12] == "400"


@attack("an address instead of a name, in every notation")
def test_addresses(scene: Scene) -> None:
    port = scene.secret.port
    for address in (
        *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.0.0.1.", "0", "[::1]", "[::]"),
        *("[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::127.0.0.1]", "169.254.169.254", "8.8.8.8"),
    ):
        scene.refused(connect(f"{address}:{port}"))
        scene.refused(get(f"{address}:{port}"))


@attack("an allowed name that leads to this machine's loopback")
def test_private_answers(scene: Scene) -> None:
    scene.refused(get("localhost"))
    assert "loopback" in scene.box.network_log[-1].reason


@attack("a second answer of the name server (rebinding)")
def test_rebinding(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name server is the attacker's: it gives a private address, later or together with a public one."""
    monkeypatch.setattr(scene.box._network.gate, "_resolve", lambda name, port: ["127.0.0.1", "::1", "10.0.0.1"])
    for _ in range(3):
        scene.refused(connect("localhost:443"))


@attack("plain HTTP whose Host header names another host")
def test_host_header(scene: Scene) -> None:
    heard = len(scene.allowed.heard)
    for header in (
        "secret.example",
        f"secret.example:{scene.allowed.port}",
        f"allowed.example:{scene.secret.port}",
        "",
    ):
        scene.refused(get(scene.host, header), 400)
    scene.refused(get(scene.host, scene.host, "Host: secret.example"), 400)
    scene.refused(connect(scene.host, "secret.example"), 400)
    assert len(scene.allowed.heard) == heard, "not a byte of them went out"


@attack("a target that reads as two hosts")
def test_confusing_targets(scene: Scene) -> None:
    evil = f"secret.example:{scene.secret.port}"
    for target in (
        *(f"http://{scene.host}@{evil}/", f"http://user:password@{scene.host}/", f"http://{scene.host}#@{evil}/"),
        *(
            f"http://{evil}\\@{scene.host}/",
            f"https://{scene.host}/",
            f"ftp://{scene.host}/",
            "/",
            "*",
            "file:///etc/passwd",
        ),
        *(f"//{scene.host}/", f"http:/{scene.host}/", f"http:///{scene.host}/", f"http://{scene.host}:80/"),
    ):
        scene.refused(f"GET {target} HTTP/1.1\r\nHost: {scene.host}\r\n\r\n", 400)
    for target in (
        f"http://{scene.host}/",
        f"{scene.host}/",
        f"x@{scene.host}",
        f"{scene.host}:443",
        "allowed.example",
    ):
        scene.refused(f"CONNECT {target} HTTP/1.1\r\nHost: {scene.host}\r\n\r\n", 400)


@attack("a second request hidden behind a CONNECT")
def test_connect_smuggling(scene: Scene) -> None:
    evil = f"secret.example:{scene.secret.port}"
    before = len(scene.box.network_log)
    answer = scene.send(connect(scene.host) + connect(evil) + get(evil))
    assert answer.startswith("HTTP/1.1 200 ") and answer.endswith("the allowed site"), "it went down the tunnel"
    assert [access.name for access in scene.box.network_log[before:]] == ["allowed.example"]
    for header in ("Content-Length: 5", "Transfer-Encoding: chunked"):
        scene.refused(connect(scene.host, None, header) + "hello" + connect(evil), 400)


def hello(name: str, pieces: int = 1) -> str:
    """Return the first words of TLS for a server of this name, in so many records."""
    said = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), said, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    record = said.read()
    kind, message, length = record[:3], record[5:], -(-len(record[5:]) // pieces)
    split = [message[at : at + length] for at in range(0, len(message), length)]
    return b"".join(kind + len(part).to_bytes(2) + part for part in split).decode("latin-1")


@attack("a tunnel to an allowed name whose TLS asks for another (SNI)")
def test_another_name_in_tls(scene: Scene) -> None:
    heard = len(scene.allowed.heard)
    for name, pieces in (("secret.example", 1), ("secret.example", 5), ("SECRET.example", 2), ("a.allowed.example", 1)):
        answer = scene.send(connect(scene.host) + hello(name, pieces))
        assert answer.startswith("HTTP/1.1 200 ") and answer.endswith("\x15\x03\x03\x00\x02\x02p"), "TLS's own alert"
        access = scene.box.network_log[-1]
        assert not access.allowed and f"TLS asks there for {name.lower()!r}" in access.reason
    for broken in (hello("secret.example", 9), hello("secret.example").replace("secret", "secret\0")):
        scene.send(connect(scene.host) + broken)
        assert not scene.box.network_log[-1].allowed
    assert len(scene.allowed.heard) == heard, "not a byte of them went out"
    scene.send(connect(scene.host) + hello("allowed.example", 3) + "\r\n\r\n")
    assert scene.box.network_log[-1].allowed and len(scene.allowed.heard) > heard


@attack("a request hidden in the body of another (two lengths)")
def test_request_smuggling(scene: Scene) -> None:
    evil = get(f"secret.example:{scene.secret.port}")
    heard = len(scene.allowed.heard)
    post = get(scene.host).replace("GET", "POST").removesuffix("\r\n")
    for headers in (
        *("Content-Length: 0\r\nContent-Length: 5", "Content-Length: 5\r\nContent-Length: 0", "Content-Length: -1"),
        *("Content-Length: 0\r\nTransfer-Encoding: chunked", "Content-Length: +5", "Content-Length: 0x5"),
        *("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "Content-Length : 5", "Content-Length: 5, 6"),
        *(
            "Content-Length:\n 5\x00",
            "Content-Length: 5\x0b",
            "Transfer-Encoding: \x0bchunked",
            "Content-\x00Length: 5",
        ),
    ):
        answer = scene.send(f"{post}{headers}\r\n\r\n{evil}")
        assert answer[9:12] in {"400", "501"}, (headers, answer[:300])
    assert len(scene.allowed.heard) == heard, "not a byte of them went out"
    chunks = f"{post}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\x00\x00{evil}"
    scene.send(chunks)
    assert not any(b"secret.example" in data for data in scene.allowed.heard[heard:])


@attack("lines that end without carriage return, or hold one")
def test_line_ends(scene: Scene) -> None:
    for request in (
        f"GET http://{scene.host}/\rHost: secret.example HTTP/1.1\r\nHost: {scene.host}\r\n\r\n",
        f"GET http://{scene.host}/ HTTP/1.1\r\nHost: {scene.host}\rX: y\r\n\r\n",
        f"GET  http://{scene.host}/ HTTP/1.1\r\nHost: {scene.host}\r\n\r\n",
        f"GET http://{scene.host}/ HTTP/9.9\r\nHost: {scene.host}\r\n\r\n",
        f"GET http://{scene.host}/\r\n\r\n",
        f"PRI * HTTP/2.0\r\nHost: {scene.host}\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ):
        assert scene.send(request)[9:12] in {"400", "505"}, request


@attack("headers without an end", bounded=True)
def test_header_bomb(scene: Scene) -> None:
    for bomb in ("X: " + "y" * 300_000, "X: y\r\n" * 60_000):
        answer = scene.send(f"GET http://{scene.host}/ HTTP/1.1\r\nHost: {scene.host}\r\n{bomb}\r\n\r\n")
        assert answer == "" or answer[9:12] in {"431", "400"}, answer[:200]
    assert scene.send(get(scene.host)).endswith("the allowed site")


@attack("many connections, each held open", bounded=True)
def test_connections_held_open(scene: Scene) -> None:
    """No more than a few dozen are taken at a time, and they are given back."""
    code = (
        "use IO::Socket::INET; for (1..300) { my $s = IO::Socket::INET->new(PeerAddr => q(127.0.0.1), "
        f"PeerPort => {PORT}, Timeout => 1) or last; print $s qq(GET ); push @s, $s; }} print scalar @s;"
    )
    assert int(scene.box.run(f"ulimit -n 1000; perl -e {shlex.quote(code)}", timeout=90).stdout) >= 64
    until("it answers again", lambda: scene.send(get(scene.host)).endswith("the allowed site"), 60)
    threads = [thread for thread in threading.enumerate() if thread.name == "sandbox-egress-client"]
    assert len(threads) <= 64 * len(PLACES)


@attack("a name server, asked directly")
def test_direct_dns(scene: Scene) -> None:
    query = base64.b64decode("EjQBAAABAAAAAAAAB2V4YW1wbGUDb3JnAAABAAE=")
    servers = {
        *re.findall(r"(?m)^nameserver\s+([\d.]+)", Path("/etc/resolv.conf").read_text()),
        "8.8.8.8",
        "127.0.0.11",
    }
    for server in servers:
        code = (
            "use Socket; socket(S, PF_INET, SOCK_DGRAM, 0); my $q = do { local $/; <STDIN> }; "
            f"send(S, $q, 0, sockaddr_in(53, inet_aton(q({server})))) or die qq(refused: $!\\n); "
            "alarm 2; recv(S, my $a, 512, 0) // die qq(refused: $!\\n); print qq(answered\\n);"
        )
        result = scene.box.run(f"perl -e {shlex.quote(code)}", stdin=query, timeout=30)
        if "answered" in result.stdout:
            raise Breach(result.output)
    assert scene.box.run("getent hosts allowed.example", timeout=30).exit_code != 0


@attack("a connection to the host, the bridge's gateway, or the clouds' metadata, without the proxy")
def test_direct_connections(scene: Scene) -> None:
    own = {entry[4][0] for entry in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in {"127.0.0.1", "172.17.0.1", "10.88.0.1", "169.254.169.254", *map(str, own)}:
        assert "no connection" in scene.send("", address, scene.secret.port)
    facts = scene.box.run("cat /proc/net/dev; cat /proc/net/route", check=True).stdout
    assert re.findall(r"(?m)^\s*(\w+):", facts) == ["lo"], "no other interface"
    assert len(facts.partition("Iface")[2].splitlines()) == 1, "no route"


@attack("the proxy's way out, ended and taken over by a cell")
def test_taken_over(scene: Scene) -> None:
    """Whoever kills our process inside may listen in its place: it leads nowhere, and the next cell has ours."""
    squat = (
        f"use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalAddr => q(127.0.0.1), LocalPort => {PORT}, "
        "ReuseAddr => 1, Listen => 1); print $s ? qq(taken) : qq(not taken);"
    )
    ours = "case $(tr '\\0' ' ' <$f/cmdline) in perl*inside.pl*) kill -9 ${f#/proc/};; esac"
    kill = f"for f in /proc/[0-9]*; do {ours}; done"
    said = scene.box.run(f"({kill}) 2>/dev/null; sleep 0.3; perl -e {shlex.quote(squat)}").stdout
    assert said in {"taken", "not taken"}
    assert scene.send(get(scene.host)).endswith("the allowed site")
    squat = f"$| = 1; {squat} sleep 600"
    hold = f"perl -e {shlex.quote(squat)} >/tmp/squat 2>&1 & until [ -s /tmp/squat ]; do sleep 0.1; done"
    scene.box.run(f"({kill}) 2>/dev/null; sleep 0.3; {hold}", timeout=60)
    result = scene.box.run("cat /tmp/squat")
    if scene.box.spec.engine == "bubblewrap":  # elsewhere it is another user's
        assert result.stdout == "taken"
    assert ("is taken" in " ".join(result.notes)) is (result.stdout == "taken"), "the cell runs all the same"
    scene.box.run("kill -9 %1; kill $(jobs -p); sleep 0.3")
    assert scene.send(get(scene.host)).endswith("the allowed site")


@attack("a job that goes on with what its cell was allowed")
def test_a_job_of_an_allowed_cell(scene: Scene) -> None:
    name = f"late.example@127.0.0.1:{scene.other.port}"
    request = f"'CONNECT late.example:{scene.other.port} HTTP/1.1' 'Host: late.example' ''"
    job = f"(until [ -e /tmp/go ]; do sleep 0.1; done; printf '%s\\r\\n' {request} | "
    job += f"{CLIENT} 127.0.0.1 {PORT} >/tmp/late 2>&1) & echo started"
    assert scene.box.run(job, network=[name]).stdout == "started\n"
    scene.box.run("touch /tmp/go")
    until("it has tried", lambda: "HTTP/1.1" in scene.box.run("cat /tmp/late 2>/dev/null").stdout)
    if "HTTP/1.1 200" in (answer := scene.box.run("cat /tmp/late").stdout):
        raise Breach(answer)
    assert [access.allowed for access in scene.box.network_log if access.name == "late.example"] == [False]


@attack("a request whose head never ends (slow loris)", bounded=True)
def test_slow_loris(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then makes no difference: it is hung up on."""
    monkeypatch.setattr(proxy, "_HEAD_SECONDS", 0.3)
    gate = Gate()
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=proxy.serve, args=(theirs, gate), daemon=True)
    thread.start()
    answer = b""
    with ours:
        ours.settimeout(0.1)
        ours.sendall(b"GET http://allowed.example/ HTTP/1.1\r\n")
        while thread.is_alive():
            with contextlib.suppress(OSError):
                ours.sendall(b"X")
                answer += ours.recv(1 << 16)
        with contextlib.suppress(OSError):
            answer += ours.recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert "in time" in gate.log()[-1].reason
