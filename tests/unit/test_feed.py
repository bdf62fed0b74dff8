"""The store between who makes stdin and who sends it: whole, in order, joined, bounded."""

from __future__ import annotations

import threading
import time

from sandbox_magic.feed import _AHEAD, _Store

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
