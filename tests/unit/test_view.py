"""What a cell shows, and how often."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stdout
from itertools import pairwise

import pytest
from front_end import Begin, Clock, FrontEnd, err, out, shown

from sandbox_magic.jupyter.view import CellView

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
