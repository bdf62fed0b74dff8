"""The stream from a sandbox to the proxy, on this machine; no sandbox."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from subprocess import PIPE, Popen

import pytest
from proxy_client import BIG, connect, get, status

from sandbox_magic import InvalidOptions
from sandbox_magic.destinations import destinations
from sandbox_magic.egress import inside, proxy, relay
from sandbox_magic.egress.gate import Gate
from sandbox_magic.egress.proxy import serve
from sandbox_magic.egress.relay import Relay
from sandbox_magic.engines.base import Machine
from sandbox_magic.engines.pipes import PipeTransport
from sandbox_magic.testing.host import until


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
