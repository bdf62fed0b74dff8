"""What a cell shows of more output than a front end takes, and what showing costs."""

from __future__ import annotations

import io
import time
import tracemalloc
from collections.abc import Callable
from contextlib import redirect_stdout

import pytest
from front_end import Begin, Clock, err, out, shown
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox_magic.jupyter.view import CellView
from sandbox_magic.protocol import Output


def numbers(count: int) -> bytes:
    return b"".join(b"%06d\n" % number for number in range(count))


def in_pieces(data: bytes, size: int) -> list[Output]:
    return [out(data[start : start + size]) for start in range(0, len(data), size)]


@pytest.mark.parametrize("size", [997, 65536, 10**7])
def test_nothing_is_lost_at_the_limit(size: int) -> None:
    data = b"x" * 99 + b"\n"
    assert shown(in_pieces(data * 9_999, size)) == (data * 9_999).decode()
    assert shown(in_pieces(data * 10_000, size)) == (data * 10_000).decode()


@pytest.mark.parametrize("size", [997, 65536, 10**7])
def test_just_above_the_limit_the_end_is_all_of_the_rest(size: int) -> None:
    data = numbers(10_000 + 9_000)
    assert shown(in_pieces(data, size)) == data.decode()


@pytest.mark.parametrize("size", [7, 997, 65536, 10**7])
def test_a_flood_of_lines_shows_its_beginning_a_line_and_its_end(size: int) -> None:
    data = numbers(100_000)
    tail = data[-65536 + 65536 % 7 :]
    lost = 90_000 - len(tail) // 7
    text = shown(in_pieces(data, size))
    notice = f"... {lost:,} lines ({lost * 7 / 1000:.1f} kB) not shown here; all of it: _sandbox.stdout\n"
    assert text == data[:70_000].decode() + notice + tail.decode()


@pytest.mark.parametrize("size", [997, 65536, 10**7])
def test_a_flood_of_bytes_is_cut_at_the_ends_of_lines(size: int) -> None:
    line = b"x" * 998 + b"\n"
    text = shown(in_pieces(line * 10_000, size), where="_sandbox.output")
    head, rest = text.split("... ")
    notice, tail = rest.split("\n", 1)
    # The head is cut in the piece that reaches the limit: at the last line's end there, if the piece has one.
    assert 999_000 - 999 <= len(head) <= 1_000_000
    assert tail == line.decode() * 65
    assert notice.endswith("MB) not shown here; all of it: _sandbox.output") and notice.startswith("8,93")


@pytest.mark.parametrize(
    ("hidden", "where"),
    [([out], "_sandbox.stdout"), ([err], "_sandbox.stderr"), ([out, err], "_sandbox.output")],
)
def test_what_is_not_shown_is_where_it_is_said_to_be(hidden: list[Callable[[bytes], Output]], where: str) -> None:
    pieces = [stream(numbers(5_000)) for stream in hidden * 20]
    assert f"; all of it: {where}\n" in shown([err(b"first\n"), *pieces])


def test_lines_shorter_than_a_byte_count_too() -> None:
    text = shown([out(b"\n" * 100_000)])
    assert text.count("\n") == 10_000 + 1 + 10_000
    assert "... 80,000 lines (80.0 kB) not shown here" in text


def test_one_endless_line_is_cut_without_breaking_characters() -> None:
    text = shown(in_pieces("\u72ac".encode() * 1_000_000, 10_000))
    head, rest = text.split("... ")
    notice, tail = rest.split("\n", 1)
    assert set(head.rstrip("\n")) == set(tail) == {"\u72ac"} and head.endswith("\n")
    assert notice == "1.9 MB not shown here; all of it: _sandbox.stdout"
    assert len(tail.encode()) > 65536 - 3


def test_a_line_longer_than_the_limits_is_cut_there() -> None:
    text = shown([out(b"a" * 10 + b"b" * 80 + b"c" * 10)], limit_bytes=10, tail_bytes=10)
    assert text == "a" * 10 + "\n... 80 bytes not shown here; all of it: _sandbox.stdout\n" + "c" * 10


@pytest.mark.parametrize("size", [1, 8, 24, 800])
def test_an_end_that_starts_a_line_keeps_it(size: int) -> None:
    data = b"".join(b"%07d\n" % number for number in range(100))
    text = shown(in_pieces(data, size), limit_lines=20, tail_bytes=64)
    assert text.endswith("stdout\n" + data[-64:].decode())


def test_what_was_on_the_line_before_the_gap_is_forgotten() -> None:
    assert shown([out(b"abcdef....\r\x1b[Kz")], limit_bytes=6, tail_bytes=5).endswith("stdout\n\rz")


def test_after_finish_nothing_is_shown_any_more() -> None:
    with redirect_stdout(io.StringIO()) as stream:
        view = CellView(limit_bytes=4, tail_bytes=4)
        view.show(out(b"aaaabbbbcccc"))
        view.finish()
        ended = stream.getvalue()
        view.finish()
        view.show(out(b"late"))
        view.finish()
    assert stream.getvalue() == ended


def test_binary_output_cannot_become_three_times_the_limit() -> None:
    text = shown([out(b"\xff" * 3_000_000)])
    assert len(text.encode()) < 1_000_000 + 3 * 65536 + 3 * 65536 + 100


def test_the_end_keeps_the_order_of_the_streams() -> None:
    outputs = [output for n in range(2000) for output in (out(b"o%04d\n" % n), err(b"e%04d\n" % n))]
    text = shown(outputs, limit_lines=10, tail_bytes=60)
    assert text.endswith("".join(f"o{n}\ne{n}\n" for n in range(1995, 2000)))
    assert "... 3,980 lines (23.9 kB) not shown here" in text


def test_colours_do_not_reach_into_the_gap() -> None:
    data = b"\x1b[31m" + b"x\n" * 50
    assert "\x1b[0m... 45 lines (90 bytes) not" in shown([out(data)], limit_lines=3, tail_bytes=4)


def test_a_long_flood_counts_in_place_and_ends_clean(begin: Begin, clock: Clock) -> None:
    view, stdout = begin(limit_lines=10, tail_bytes=7)
    for start in range(0, 4000, 10):
        view.show(out(numbers(10) if start == 0 else b"%06d\n" % start * 10))
        clock.now += 0.01
    counts = [text for text in stdout.texts if "so far" in text]
    assert 7 <= len(counts) <= 8, "twice a second in four seconds"
    assert counts[0].startswith("... ") and all(text.startswith("\r... ") for text in counts[1:])
    view.finish()
    lines = stdout.getvalue().split("\n")
    assert len(lines) == 10 + 1 + 1 + 1
    last = lines[10].rsplit("\r", 1)[1]
    assert last == "... 3,989 lines (27.9 kB) not shown here; all of it: _sandbox.stdout"
    assert lines[11] == "003990"


def test_a_count_that_is_due_has_a_deadline(begin: Begin, clock: Clock) -> None:
    view, stdout = begin(limit_bytes=2)
    view.show(out(b"1\n2\n3\n"))
    assert view.deadline() == pytest.approx(0.5)
    clock.now += 0.5
    view.tick()
    assert stdout.texts == ["1\n", "... 2 lines (4 bytes) more so far"]
    assert view.deadline() is None
    view.finish()
    assert stdout.getvalue().endswith(f"\r{' ' * 33}\r2\n3\n"), "there was no need to hide anything"


def test_a_count_waits_for_the_share_of_what_was_written_before(begin: Begin, clock: Clock) -> None:
    view, stdout = begin(limit_bytes=600_000)
    view.show(out(b"x" * 600_000))
    view.show(out(b"more"))
    assert view.deadline() == pytest.approx(1.0)
    clock.now += 0.6
    view.tick()
    assert len(stdout.texts) == 1


def test_memory_is_bounded() -> None:
    piece = Output("stdout", b"x" * 1023 + b"\n")
    with redirect_stdout(io.StringIO()):
        view = CellView(limit_bytes=10_000)
        view.show(piece)
        tracemalloc.start()
        for _ in range(3000):
            view.show(piece)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert used < 400_000


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.tuples(st.sampled_from(["stdout", "stderr"]), st.sampled_from([b"a\n", b"bcd", b"\n", b"e" * 20 + b"\n"]))
    ),
    st.integers(1, 100),
    st.integers(1, 8),
    st.integers(1, 50),
)
def test_all_is_shown_or_counted(pieces: list[tuple[str, bytes]], size: int, lines: int, tail: int) -> None:
    outputs = [Output(stream, data) for stream, data in pieces]
    data = b"".join(piece for _, piece in pieces).decode()
    text = shown(outputs, limit_bytes=size, limit_lines=lines, tail_bytes=tail)
    if "... " not in text:
        assert text == data
        return
    head, rest = text.split("... ")
    notice, end = rest.split("\n", 1)
    if len(head) > size or not data.startswith(head):
        head = head[:-1]  # the newline that we put before our line
    assert data.startswith(head) and data.endswith(end)
    assert head.count("\n") <= lines and len(head) <= size and end.count("\n") <= lines and len(end) <= tail
    missing = data[len(head) : len(data) - len(end)]
    count = missing.count("\n")
    assert missing and f"{len(missing)} bytes" in notice
    assert f"{count} line" in notice if count else "line" not in notice


# ------------------------------------------------------------------------------------------------------ cost


def cost(action: Callable[[], object]) -> float:
    """Return the processor time of one call, in seconds; the least of a few rounds."""
    rounds = []
    for _ in range(5):
        start = time.process_time()
        for _ in range(200):
            action()
        rounds.append((time.process_time() - start) / 200)
    return min(rounds)


def test_one_line_costs_microseconds(begin: Begin) -> None:
    line = out(b"hello\n")

    def cell() -> None:
        view, _ = begin()
        view.show(line)
        view.finish()

    assert cost(cell) < 100e-6  # about 10 us


def test_a_flood_passes_at_full_speed() -> None:
    pieces = [out((b"x" * 63 + b"\n") * 1024)] * 80
    start = time.process_time()
    shown(pieces)
    assert time.process_time() - start < 0.25  # 5 MB take about 10 ms
