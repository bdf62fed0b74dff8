"""Frames of a hijacked Docker connection, over a real socket pair."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time

import pytest

from sandbox_magic.errors import EngineError
from sandbox_magic.transport import MultiplexedSocket, Watcher


@pytest.fixture
def pair():
    here, there = socket.socketpair()
    transport = MultiplexedSocket(here, exit_code=lambda: 7)
    yield transport, there
    transport.close()
    there.close()


def frame(stream: int, data: bytes) -> bytes:
    return struct.pack(">BxxxI", stream, len(data)) + data


def collect(transport: MultiplexedSocket, size: int) -> dict[str, bytes]:
    got = {"stdout": b"", "stderr": b""}
    while sum(map(len, got.values())) < size:
        for stream, data in transport.receive(5):
            assert data
            got[stream] += data
    return got


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 8, 9, 4096])
def test_frames_at_any_split(pair, step: int) -> None:
    transport, there = pair
    wire = frame(1, b"out") + frame(2, b"err") + frame(1, b"") + frame(1, b"x" * 3000) + frame(2, b"\x01\x00\x00\x00")

    def speak() -> None:
        for at in range(0, len(wire), step):
            there.sendall(wire[at : at + step])

    threading.Thread(target=speak).start()
    assert collect(transport, 3010) == {"stdout": b"out" + b"x" * 3000, "stderr": b"err\x01\x00\x00\x00"}


def test_the_end_is_reported_for_both_streams_and_stays(pair) -> None:
    transport, there = pair
    there.sendall(frame(1, b"last"))
    there.close()
    assert collect(transport, 4)["stdout"] == b"last"
    assert transport.receive(5) == [("stdout", b""), ("stderr", b"")]
    assert transport.receive(5) == [("stdout", b""), ("stderr", b"")]
    transport.send(b"into the void")
    assert transport.exit_code() == 7


def test_something_else_than_frames_is_refused(pair) -> None:
    transport, there = pair
    there.sendall(b"HTTP/1.1 500")
    with pytest.raises(EngineError, match="frame"):
        transport.receive(5)


def test_waiting_ends_by_time_and_by_wake(pair) -> None:
    transport, _ = pair
    begun = time.monotonic()
    assert transport.receive(0.05) == []
    assert 0.04 < time.monotonic() - begun < 5
    threading.Timer(0.1, transport.wake).start()
    assert transport.receive(10) == []
    assert time.monotonic() - begun < 5
    for _ in range(100_000):
        transport.wake()  # more than a pipe takes: never blocks
    assert transport.receive(10) == []


def test_sending_never_blocks_and_everything_arrives(pair) -> None:
    transport, there = pair
    data = os.urandom(5_000_000)
    begun = time.monotonic()
    transport.send(data)
    transport.send(b"end")
    assert time.monotonic() - begun < 5
    assert transport.pending() > 0
    got = bytearray()

    def read() -> None:
        while len(got) < len(data) + 3:
            got.extend(there.recv(1 << 16))
        there.sendall(frame(1, b"x"))

    reader = threading.Thread(target=read)
    reader.start()
    assert collect(transport, 1)["stdout"] == b"x"
    reader.join()
    assert bytes(got) == data + b"end"
    assert transport.pending() == 0


def test_close_twice(pair) -> None:
    transport, there = pair
    transport.close()
    transport.close()
    transport.wake()
    assert there.recv(1) == b""


def test_the_watcher_calls_back_after_a_rest_and_stops() -> None:
    watcher = Watcher()
    here, there = socket.socketpair()
    called = threading.Event()

    def read() -> None:
        here.recv(100)
        called.set()

    watcher.add(here.fileno(), read)
    there.sendall(b"x")
    assert called.wait(5)
    called.clear()
    watcher.remove(here.fileno())
    there.sendall(b"y")
    assert not called.wait(0.2)
    watcher.add(here.fileno(), read)
    watcher.remove(here.fileno())  # while it rests
    assert not called.wait(0.2)
    here.close()
    there.close()


def test_the_watcher_calls_again_and_again_until_told_otherwise() -> None:
    watcher = Watcher()
    slow, fast = threading.Event(), threading.Semaphore(0)
    watcher.every(1000, slow.set)
    number = watcher.every(0.02, fast.release)
    for _ in range(3):
        assert fast.acquire(timeout=5)
    watcher.stop(number)
    time.sleep(0.3)  # a call may have been on its way
    while fast.acquire(blocking=False):
        pass
    assert not fast.acquire(timeout=0.3)
    assert not slow.is_set()


def test_a_forked_child_gives_its_copy_up(pair) -> None:
    transport, there = pair
    child = os.fork()
    if child == 0:
        time.sleep(1)
        os._exit(0)
    transport._sock.close()  # without a shutdown: as when this process is killed
    there.settimeout(0.5)
    assert there.recv(1) == b""
    os.waitpid(child, 0)
