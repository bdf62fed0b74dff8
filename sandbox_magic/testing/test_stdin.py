"""What is promised of stdin that is streamed, and of questions."""

from __future__ import annotations

import hashlib
import io
import random
import time
from collections.abc import Iterator

import pytest

from sandbox_magic import CommandTimeout, Sandbox

SECONDS = 60


def test_an_iterator_is_fed(shared: Sandbox) -> None:
    assert shared.run("cat; echo end", stdin=iter([b"a\n", "b\n", b""]), timeout=SECONDS).stdout == "a\nb\nend\n"
    assert shared.run("cat; echo end", stdin=iter([]), timeout=SECONDS).stdout == "end\n"


def test_it_is_fed_while_the_cell_runs(shared: Sandbox) -> None:
    seen: list[bytes] = []

    def answers() -> Iterator[bytes]:
        for number in range(3):
            deadline = time.monotonic() + SECONDS
            while number and b"got %d" % (number - 1) not in b"".join(seen) and time.monotonic() < deadline:
                time.sleep(0.02)
            yield b"%d\n" % number

    command = "while read x; do echo got $x; done"
    result = shared.run(command, stdin=answers(), on_output=lambda output: seen.append(output.data), timeout=SECONDS)
    assert result.stdout == "got 0\ngot 1\ngot 2\n"


def test_every_byte_of_a_file_arrives(shared: Sandbox) -> None:
    data = random.Random(1).randbytes(5_000_000)
    for _ in range(3):
        result = shared.run("md5sum", stdin=io.BytesIO(data), timeout=SECONDS)
        assert result.stdout.split()[0] == hashlib.md5(data).hexdigest()
    assert shared.run("md5sum", stdin=data, timeout=SECONDS).stdout.split()[0] == hashlib.md5(data).hexdigest()
    for size in (0, 1, 65535, 65536, 65537):
        assert shared.run("wc -c", stdin=data[:size], timeout=SECONDS).stdout.split() == [str(size)]
    assert shared.run("cat", stdin=io.StringIO("text\n"), timeout=SECONDS).stdout == "text\n"


def test_many_small_pieces_arrive(shared: Sandbox) -> None:
    pieces = (f"{number}\n" for number in range(20_000))
    assert shared.run("wc -l; cat", stdin=pieces, timeout=SECONDS).stdout.split() == ["20000"]
    for data in (bytearray(b"a\n"), memoryview(b"a\n"), ["a", "\n"]):
        assert shared.run("cat", stdin=data, timeout=SECONDS).stdout == "a\n"


def test_who_does_not_read_all_is_not_held_up(shared: Sandbox) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"y\n" * 5000

    assert shared.run("head -n 1", stdin=endless(), timeout=SECONDS).stdout == "y\n"
    for source in (io.BytesIO(b"x" * 3_000_000), b"x" * 3_000_000, "x" * 3_000_000):
        assert shared.run("true", stdin=source, timeout=SECONDS).exit_code == 0
    assert shared.run("echo next").stdout == "next\n"
    with pytest.raises(CommandTimeout):
        shared.run("sleep 3000", stdin=endless(), timeout=0.5)


def test_an_iterator_that_fails_ends_the_input_and_is_told(shared: Sandbox) -> None:
    def broken() -> Iterator[bytes]:
        yield b"first\n"
        raise ValueError("no more")

    result = shared.run("cat", stdin=broken(), timeout=SECONDS)
    assert result.stdout == "first\n"
    assert "no more" in result.notes[-1]
    assert "must give bytes" in shared.run("cat", stdin=iter([1]), timeout=SECONDS).notes[-1]


def test_it_asks_when_the_cell_waits(shared: Sandbox) -> None:
    answers = iter(["one", "two", None])
    asked: list[str | None] = []

    def ask() -> str | None:
        asked.append(next(answers))
        return asked[-1]

    command = "sleep 1; printf 'q? '; read x; echo got $x; cat | sed s/^/:/; read y || echo end"
    result = shared.run(command, ask=ask, timeout=SECONDS)
    assert result.stdout == "q? got one\n:two\nend\n"
    assert asked == ["one", "two", None]


def test_it_asks_on_a_terminal_too(shared: Sandbox) -> None:
    if "--echo" not in shared.run("script --help 2>/dev/null; true").stdout:
        return
    answers = iter(["one", "two", None])
    command = "read x; [ -t 0 ] && echo $x; read y </dev/tty; echo $y; cat; cat; echo end"
    result = shared.run(command, ask=lambda: next(answers), tty=True, timeout=SECONDS)
    assert result.stdout == "one\ntwo\nend\n"


def test_a_terminal_says_what_is_a_secret(shared: Sandbox) -> None:
    if "--echo" not in shared.run("script --help 2>/dev/null; true").stdout:
        return
    secret, plain = iter(["s3cret"]), iter(["Ada", "öne"])
    command = "printf 'a: '; read a; printf 'b: '; stty -echo; read b; stty echo; echo; read c; echo $a $b $c"
    result = shared.run(command, ask=lambda: next(plain), ask_secret=lambda: next(secret), tty=True, timeout=SECONDS)
    assert result.stdout == "a: b: \nAda s3cret öne\n"


def test_at_a_terminal_it_asks_only_who_waits(shared: Sandbox) -> None:
    if "--echo" not in shared.run("script --help 2>/dev/null; true").stdout:
        return
    asked: list[int] = []
    result = shared.run("sleep 1; echo done | cat", ask=lambda: asked.append(1), tty=True, timeout=SECONDS)
    assert (result.stdout, asked) == ("done\n", [])


def test_it_does_not_ask_who_does_not_wait(shared: Sandbox) -> None:
    asked: list[int] = []
    result = shared.run("sleep 1; echo done | cat", ask=lambda: asked.append(1), timeout=SECONDS)
    assert (result.stdout, asked) == ("done\n", [])
