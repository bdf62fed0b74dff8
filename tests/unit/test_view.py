from __future__ import annotations

import io
import sys
import time
import tracemalloc
from collections.abc import Callable
from contextlib import redirect_stdout
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox_magic.jupyter.view import CellView
from sandbox_magic.protocol import Output


class FrontEnd(io.StringIO):
    """What a kernel's `sys.stdout` is to us: each flush with something to send is one message."""

    def __init__(self, clock: Clock, log: list[tuple[str, str]] | None = None, name: str = "stdout") -> None:
        super().__init__()
        self._clock, self._log, self._name = clock, log, name
        self._sent = 0
        self.messages: list[tuple[float, str]] = []

    def flush(self) -> None:
        text = self.getvalue()[self._sent :]
        if text:
            self._sent += len(text)
            self.messages.append((self._clock.now, text))
            if self._log is not None:
                self._log.append((self._name, text))

    @property
    def texts(self) -> list[str]:
        return [text for _, text in self.messages]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


Begin = Callable[..., tuple[CellView, FrontEnd]]


@pytest.fixture
def begin(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Begin:
    """Return a function, as pytest puts its own `sys.stdout` in place between a test and its fixtures."""

    def begin(**options: Any) -> tuple[CellView, FrontEnd]:
        stdout = FrontEnd(clock)
        monkeypatch.setattr(sys, "stdout", stdout)
        return CellView(clock=clock, **options), stdout

    return begin


def out(data: bytes) -> Output:
    return Output("stdout", data)


def err(data: bytes) -> Output:
    return Output("stderr", data)


def shown(outputs: list[Output], **options: object) -> str:
    """Return what a whole cell shows."""
    with redirect_stdout(io.StringIO()) as stream:
        view = CellView(**{"clock": lambda: 0.0} | options)  # type: ignore[arg-type] # no live count on a slow machine
        for output in outputs:
            view.show(output)
        view.finish()
    return stream.getvalue()


# ---------------------------------------------------------------------------------------------------- how often


def test_the_first_output_is_shown_at_once(begin: Begin) -> None:
    view, stdout = begin()
    view.show(out(b"$ "))
    assert stdout.texts == ["$ "]


def test_a_cell_without_output_sends_nothing(begin: Begin) -> None:
    view, stdout = begin()
    view.show(out(b""))
    view.tick()
    view.finish()
    assert stdout.texts == [] and view.deadline() is None


def test_output_that_comes_fast_is_joined(begin: Begin, clock: Clock) -> None:
    view, stdout = begin()
    for _ in range(1000):
        view.show(out(b"x\n"))
        clock.now += 0.001
    view.finish()
    assert 10 <= len(stdout.texts) <= 11
    assert stdout.getvalue() == "x\n" * 1000


def test_what_is_held_back_has_a_deadline_and_comes_with_a_tick(begin: Begin, clock: Clock) -> None:
    view, stdout = begin()
    view.show(out(b"a"))
    assert view.deadline() is None
    clock.now += 0.03
    view.show(out(b"b"))
    assert view.deadline() == pytest.approx(0.07)
    view.tick()
    assert stdout.texts == ["a"], "not yet"
    clock.now += 0.08
    assert view.deadline() == 0.0
    view.tick()
    assert stdout.texts == ["a", "b"] and view.deadline() is None


def test_what_is_held_back_comes_with_finish(begin: Begin) -> None:
    view, stdout = begin()
    view.show(out(b"a"))
    view.show(out(b"b"))
    view.finish()
    view.finish()
    assert stdout.texts == ["a", "b"]


def test_the_rate_is_bounded_on_average(begin: Begin, clock: Clock) -> None:
    view, stdout = begin()
    start = clock.now
    for _ in range(1000):  # 900 KB/s for a second
        view.show(out(b"x" * 899 + b"\n"))
        clock.now += 0.001
    sent = [len(text) for text in stdout.texts]
    assert sum(sent) <= 600_000 * (clock.now - start) + sent[-1], "a burst is paid for afterwards"
    while (wait := view.deadline()) is not None:
        clock.now += wait + 1e-6
        view.tick()
    assert len(stdout.getvalue()) == 900_000
    for (before, text), (after, _) in pairwise(stdout.messages):
        assert after - before >= max(0.1, len(text) / 600_000) - 1e-9


def test_after_a_burst_the_next_flush_waits_for_its_share(begin: Begin, clock: Clock) -> None:
    view, stdout = begin()
    view.show(out(b"x" * 300_000))
    clock.now += 0.2
    view.show(out(b"next"))
    assert len(stdout.texts) == 1
    assert view.deadline() == pytest.approx(0.3)


# -------------------------------------------------------------------------------------------------- what and where


def test_stderr_is_merged_in_order_of_arrival(begin: Begin) -> None:
    view, stdout = begin()
    for output in (out(b"1\n"), err(b"2\n"), out(b"3\n"), err(b"4\n")):
        view.show(output)
    view.finish()
    assert stdout.getvalue() == "1\n2\n3\n4\n"


def test_stderr_apart(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[tuple[str, str]] = []
    monkeypatch.setattr(sys, "stdout", FrontEnd(clock, log))
    monkeypatch.setattr(sys, "stderr", FrontEnd(clock, log, "stderr"))
    view = CellView(separate_stderr=True, clock=clock)
    view.show(out(b"1"))
    for output in (err(b"2"), out(b"3"), err(b"4")):
        view.show(output)
    view.finish()
    assert log == [("stdout", "1"), ("stderr", "24"), ("stdout", "3")]


def test_quiet_shows_nothing(clock: Clock, begin: Begin) -> None:
    view, stdout = begin(quiet=True, limit_bytes=10)
    view.show(out(b"x" * 100))
    view.finish()
    assert stdout.getvalue() == ""


def test_only_the_streams_asked_for() -> None:
    assert shown([out(b"a"), err(b"b")], show=("stderr",)) == "b"


def test_sys_stdout_is_looked_up_at_each_write(begin: Begin, clock: Clock) -> None:
    view, stdout = begin()
    view.show(out(b"before "))
    clock.now += 1
    with redirect_stdout(io.StringIO()) as captured:
        view.show(out(b"inside"))
    clock.now += 1
    view.show(out(b"after"))
    assert (stdout.getvalue(), captured.getvalue()) == ("before after", "inside")


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_characters_are_never_cut(size: int, begin: Begin, clock: Clock) -> None:
    view, stdout = begin()
    text = "caf\xe9 \u72ac \U0001f600\n"
    data = text.encode()
    for start in range(0, len(data), size):
        view.show(out(data[start : start + size]))
        clock.now += 1
    view.finish()
    assert stdout.getvalue() == text and "\ufffd" not in "".join(stdout.texts)


def test_each_stream_has_its_own_decoder(begin: Begin) -> None:
    view, stdout = begin()
    for output in (out(b"\xe7\x8a"), err(b"E"), out(b"\xac")):
        view.show(output)
    view.finish()
    assert stdout.getvalue() == "E\u72ac"


def test_bytes_that_are_not_utf8_are_replaced() -> None:
    assert shown([out(b"a\xff\xfeb\xe7\x8a")]) == "a\ufffd\ufffdb\ufffd"


def test_a_progress_bar_passes_as_it_is(begin: Begin, clock: Clock) -> None:
    view, stdout = begin()
    for percent in range(0, 101, 10):
        view.show(err(b"\r%3d %%" % percent))
        clock.now += 0.2
    view.finish()
    assert stdout.texts == [f"\r{percent:3d} %" for percent in range(0, 101, 10)]


def test_control_sequences_are_filtered_across_pieces() -> None:
    assert shown([out(b"a\x1b]0;ti"), out(b"tle\x07b\x1b["), out(b"2Jc\r\x1b[K"), err(b"d\n")]) == "abc\r   \rd\n"


def test_a_terminal_erases_itself(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = FrontEnd(clock)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", terminal)
    view = CellView(clock=clock)
    view.show(out(b"abc\r\x1b[Kd\x1b[2J\n"))
    assert terminal.getvalue() == "abc\r\x1b[Kd\n"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x1b[8mhidden", "\x1b[8mhidden\x1b[0m"),
        (b"\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
        (b"\x1b[31mred\x1b[m\n", "\x1b[31mred\x1b[m\n"),
    ],
)
def test_colours_end_with_the_cell(data: bytes, text: str) -> None:
    assert shown([out(data)]) == text


def test_a_terminal_that_is_not_utf8(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    view = CellView(clock=clock)
    view.show(out("caf\xe9\n".encode()))
    assert raw.getvalue() == b"caf\\xe9\n"


class Interrupted(FrontEnd):
    def flush(self) -> None:
        super().flush()
        raise KeyboardInterrupt


def test_an_interrupt_while_flushing_loses_and_repeats_nothing(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Interrupted(clock), FrontEnd(clock)
    monkeypatch.setattr(sys, "stdout", first)
    view = CellView(clock=clock)
    with pytest.raises(KeyboardInterrupt):
        view.show(out(b"one\n"))
    monkeypatch.setattr(sys, "stdout", second)
    view.show(out(b"two\n"))
    view.finish()
    assert (first.getvalue(), second.getvalue()) == ("one\n", "two\n")


# ----------------------------------------------------------------------------------------------------- floods


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
