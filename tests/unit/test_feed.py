"""The store between who makes stdin and who sends it: whole, in order, joined, bounded; and the end of a stream."""

from __future__ import annotations

import threading
import time

from sandbox_magic.feed import _AHEAD, Feed, _Store

SECONDS = 30


def test_small_pieces_are_joined() -> None:
    store, taken = _Store(), []
    pieces = [b"%d\n" % number for number in range(50_000)]

    def put() -> None:
        for piece in pieces:
            assert store.put(piece)
        store.end()

    thread = threading.Thread(target=put)
    thread.start()
    while data := store.get():
        taken.append(data)
    thread.join(SECONDS)
    assert b"".join(taken) == b"".join(pieces)
    assert len(taken) < len(pieces) / 50
    assert store.get() == b""


def test_what_is_there_is_given_while_nothing_more_comes() -> None:
    store, taken = _Store(), []
    thread = threading.Thread(target=lambda: taken.append(store.get()), daemon=True)
    thread.start()
    store.put(b"one\n")
    thread.join(SECONDS)
    assert taken == [b"one\n"]
    store.put(b"")
    store.end()
    assert store.get() == b""


def test_who_makes_it_waits_while_nobody_takes_and_goes_on_when_nobody_will() -> None:
    store, done = _Store(), []

    def put() -> None:
        while store.put(b"x" * 1000):
            pass
        done.append(True)

    thread = threading.Thread(target=put, daemon=True)
    thread.start()
    deadline = time.monotonic() + SECONDS
    while store._put <= _AHEAD and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _AHEAD < store._put <= _AHEAD + 1000
    assert not done
    store.give_up()
    thread.join(SECONDS)
    assert done


class Slow:
    """A stream whose other end takes nothing; it notes if it is used while or after it is closed."""

    def __init__(self) -> None:
        self.misused = self.closed = False
        self.used, self.woken = threading.Event(), threading.Event()

    def send(self, data: bytes) -> None:
        self.misused |= self.closed or not data

    def pending(self) -> int:
        return 1

    def receive(self, timeout: float) -> list[tuple[str, bytes]]:
        self.misused |= self.closed
        self.used.set()
        self.woken.wait(timeout)
        self.misused |= self.closed
        return []

    def wake(self) -> None:
        self.woken.set()

    def close(self) -> None:
        self.closed = True


class Given:
    """What starts the helper."""

    def __init__(self, transport: Slow) -> None:
        self.transport = transport

    def open(self, _: list[str]) -> Slow:
        return self.transport


class Begun(Feed):
    def _begin(self) -> int:
        return 1


def test_a_stream_is_not_closed_while_another_thread_uses_it() -> None:
    """Its descriptors would be those of another file by then, which would get what was meant for the cell."""
    slow = Slow()
    feed = Begun(Given(slow), None)  # type: ignore[arg-type] # all that is needed of them
    sender = threading.Thread(target=lambda: feed.send(b"x" * 100), daemon=True)
    sender.start()
    assert slow.used.wait(SECONDS)
    feed.close()
    sender.join(SECONDS)
    assert (slow.closed, slow.misused, sender.is_alive()) == (True, False, False)
    assert not feed.send(b"more")
    assert not slow.misused
