"""A cell's output, shown while the cell runs.

Front ends drop messages that come too fast and freeze on floods, so this decides how often and how much is written:
at most ten times a second, 600 KB/s on average, and of a flood the beginning, a count, and the end. The magic's own
frame pumps, in the main thread, so output lands in the right cell and `%%capture` and `%%time` see it. There is no
thread and no timer here: whoever waits for output waits no longer than `CellView.deadline` and then calls `tick`.
"""

from __future__ import annotations

import codecs
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, TextIO

from sandbox_magic.ansi import AnsiFilter, Line
from sandbox_magic.capture import KEPT
from sandbox_magic.protocol import STDERR, STDOUT, STREAMS

if TYPE_CHECKING:
    from sandbox_magic.protocol import Output

_SLACK = 1 << 20  # bytes that the head may have taken of what is kept
_SLICE = 65536  # so much is filtered before the limit is looked at again: text can be longer than its bytes
_COUNT_INTERVAL = 0.5  # seconds between two updates of the live count
_CONTINUATION = bytes(range(0x80, 0xC0))  # bytes that do not begin a character of UTF-8
_RESET = "\x1b[0m"
_RESETS = ("\x1b[m", "\x1b[0m", "\x1b[00m")
_Decoder = codecs.getincrementaldecoder("utf-8")


class CellView:
    """Shows one cell's output; make one for each cell, and call `finish` on every path.

    Args:
        quiet: Show nothing at all.
        separate_stderr: Write stderr to `sys.stderr`. Otherwise all goes to `sys.stdout`, in order of arrival.
        show: The streams that are shown.
        limit_bytes: Beyond this many bytes the rest is counted, and only its end is shown.
        limit_lines: The same for lines; the end is not longer than this either.
        tail_bytes: The size of that end.
        interval: Seconds between two flushes. The very first output is shown at once.
        rate: Bytes per second, on average; what comes at once is written at once, and then waited for.
        where: What holds all of the output, for the line that says what is not shown; `None` is the `Result` in
            `_sandbox`.
        clock: Seconds from any starting point.
    """

    def __init__(  # noqa: PLR0913 # every one is a setting of its own, and most are left alone by everyone
        self,
        *,
        quiet: bool = False,
        separate_stderr: bool = False,
        show: Collection[str] = STREAMS,
        limit_bytes: int = 1_000_000,
        limit_lines: int = 10_000,
        tail_bytes: int = 65536,
        interval: float = 0.1,
        rate: float = 600_000,
        where: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shown: Collection[str] = () if quiet else show
        self._separate = separate_stderr
        self._bytes_left, self._lines_left = limit_bytes, limit_lines
        self._text_left = limit_bytes  # what is written can be longer than what came: a bad byte becomes three
        self._tail_bytes, self._tail_lines = tail_bytes, limit_lines
        self._where = where
        self._clock = clock
        self._writer = _Writer(interval, rate, clock)
        self._channels: dict[str, _Channel] = {}
        self._line = Line()
        self._tail: _Tail | None = None  # made when the limit is reached
        self._count = ""  # the live count as it was last shown
        self._count_due = 0.0
        self._counted = 0

    def show(self, output: Output) -> None:
        """Show a piece of output, now or, if that would be too often, at the next `tick`, `show` or `finish`."""
        data = output.data
        if not data or output.stream not in self._shown:
            return
        if self._tail is None:
            data = self._show_head(output.stream, data)
        if data:
            self._hide(output.stream, data)
        self.tick()

    @property
    def settled(self) -> bool:
        """Whether all that has come is written: not so after a flood, whose end is still to come."""
        return not self._writer.pending and self._tail is None

    def deadline(self) -> float | None:
        """Return in how many seconds `tick` has something to do; `None` if nothing is held back."""
        if self._writer.pending:
            due = self._writer.due
        elif self._tail is not None and self._tail.size != self._counted:
            due = max(self._count_due, self._writer.due)
        else:
            return None
        return max(0.0, due - self._clock())

    def tick(self) -> None:
        """Write what is due; call it when `deadline` has passed, at any other time it does nothing."""
        now = self._clock()
        if now < self._writer.due:
            return
        if self._tail is not None and self._tail.size != self._counted and now >= self._count_due:
            self._show_count(self._tail)
            self._count_due = now + _COUNT_INTERVAL
        if self._writer.pending:
            self._writer.flush()

    def finish(self) -> None:
        """Write all that is still held back, and after a flood its end; a second call does nothing."""
        tail, self._tail, self._shown = self._tail, None, ()
        if tail is not None:
            if tail.cut():
                self._channels.clear()  # what they hold back belongs to bytes before the gap
                self._line = Line()
                self._show_gap(tail)
            elif self._count:  # the flood ended in time: it is shown as a whole after all
                self._put(STDOUT, f"\r{' ' * len(self._count)}\r")
            for stream, data in tail.runs:
                self._put_data(stream, bytes(data))
        for stream, channel in self._channels.items():
            self._put(stream, channel.finish())
        self._writer.finish()

    def _show_head(self, stream: str, data: bytes) -> bytes:
        """Show `data` up to the limit and return what lies beyond."""
        start = 0
        while start < len(data):
            piece = data[start : start + _SLICE]
            end = self._head_end(piece)
            self._put_data(stream, piece[:end])
            self._bytes_left -= end
            self._lines_left -= piece.count(b"\n", 0, end)
            start += end
            if end < len(piece):
                return data[start:]
        return b""

    def _head_end(self, data: bytes) -> int:
        """Return how much of `data` is within the limit, at the end of a line if there is one."""
        room = min(self._bytes_left, self._text_left)
        if room <= 0 or self._lines_left <= 0:
            return 0
        end = len(data)
        if end > room:
            end = data.rfind(b"\n", 0, room) + 1 or room
        if data.count(b"\n", 0, end) >= self._lines_left:
            end -= len(data[:end].split(b"\n", self._lines_left)[-1])
        return end

    def _put_data(self, stream: str, data: bytes) -> None:
        """Decode and filter bytes of the sandbox."""
        if not data:
            return
        channel = self._channels.get(stream)
        if channel is None:
            channel = self._channels[stream] = _Channel(self._filter(stream))
        self._text_left -= self._put(stream, channel.feed(data))

    def _filter(self, stream: str) -> AnsiFilter:
        target = _stream(self._target(stream))
        return AnsiFilter(None if self._separate else self._line, native_erase=target.isatty())

    def _target(self, stream: str) -> str:
        return stream if self._separate else STDOUT

    def _put(self, stream: str, text: str) -> int:
        """Hand over text to be written and return its size in bytes."""
        return self._writer.put(self._target(stream), text) if text else 0

    def _hide(self, stream: str, data: bytes) -> None:
        if self._tail is None:
            self._tail = _Tail(self._tail_bytes, self._tail_lines)
            self._count_due = self._clock() + _COUNT_INTERVAL  # a short flood needs no live count
        self._tail.add(stream, data)

    def _show_count(self, tail: _Tail) -> None:
        """Show in one line, which the next count overwrites, how much more there is."""
        start = "\r" if self._count else self._writer.new_line()
        self._count = f"... {_amount(tail.lines, tail.size)} more so far"
        self._counted = tail.size
        self._put(STDOUT, start + self._count)

    def _show_gap(self, tail: _Tail) -> None:
        """Say in one line, in place of the live count, which is always shorter, what is missing here."""
        start = "\r" if self._count else self._writer.new_line()
        much = f"the first {KEPT >> 20} MB of it" if tail.size > KEPT - _SLACK else "all of it"
        where = self._where or f"_sandbox.{tail.streams.pop() if len(tail.streams) == 1 else 'output'}"
        text = f"... {_amount(tail.lost_lines, tail.lost_bytes)} not shown here; {much}: {where}"
        self._put(STDOUT, start + text + "\n")


class _Channel:
    """One stream's way from bytes to text; characters and control sequences may be cut anywhere."""

    __slots__ = ("_ansi", "_decode")

    def __init__(self, ansi: AnsiFilter) -> None:
        self._decode = _Decoder("replace").decode
        self._ansi = ansi

    def feed(self, data: bytes) -> str:
        return self._ansi.feed(self._decode(data))

    def finish(self) -> str:
        return self._ansi.feed(self._decode(b"", True)) + self._ansi.finish()


class _Writer:
    """Writes text to `sys.stdout` and `sys.stderr` as they are at that moment, seldom enough for a front end.

    Of text that waits together, a stream's is joined: two messages at most, in the order in which they began.
    """

    __slots__ = ("_clock", "_coloured", "_in_line", "_interval", "_rate", "_size", "due", "pending")

    def __init__(self, interval: float, rate: float, clock: Callable[[], float]) -> None:
        self._interval, self._rate, self._clock = interval, rate, clock
        self._size = 0
        self._coloured: set[str] = set()  # where a colour was begun and not ended
        self._in_line = False  # whether stdout's last line has text
        self.due = -math.inf  # not to be flushed before
        self.pending: dict[str, list[str]] = {}

    def put(self, target: str, text: str) -> int:
        """Take text to be written to `target` and return its size in bytes."""
        self.pending.setdefault(target, []).append(text)
        if "\x1b" in text:
            ended = text.startswith(_RESETS, text.rfind("\x1b"))
            (self._coloured.discard if ended else self._coloured.add)(target)
        if target == STDOUT:
            self._in_line = text[-1] != "\n"
        size = len(text) if text.isascii() else len(text.encode())
        self._size += size
        return size

    def new_line(self) -> str:
        """Return what brings stdout to the start of an empty line, without colours."""
        reset = _RESET if STDOUT in self._coloured else ""
        return reset + ("\n" if self._in_line else "")

    def flush(self) -> None:
        """Write all that waits."""
        while self.pending:
            target, parts = next(iter(self.pending.items()))
            stream = _stream(target)
            _write(stream, "".join(parts))
            del self.pending[target]  # before the flush, which is where an interrupt arrives: nothing is written twice
            stream.flush()
        self.due = self._clock() + max(self._interval, self._size / self._rate)
        self._size = 0

    def finish(self) -> None:
        """Write all that waits, and end colours: they would go on in a terminal's prompt."""
        for target in sorted(self._coloured):
            self.put(target, _RESET)
        if self.pending:
            self.flush()


class _Tail:
    """The end of a flood, and how much the flood was; holds less than twice the limit.

    Attributes:
        size, lines, streams: Of everything that was added.
        runs: What is kept: pieces of one stream each, in order of arrival.
        lost_bytes, lost_lines: Of what is not kept; true after `cut`.
    """

    __slots__ = (
        "_kept",
        "_limit",
        "_limit_lines",
        "_starts_line",
        "lines",
        "lost_bytes",
        "lost_lines",
        "runs",
        "size",
        "streams",
    )

    def __init__(self, limit: int, limit_lines: int) -> None:
        self._limit, self._limit_lines = limit, limit_lines
        self._kept = 0
        self._starts_line = False  # whether what is kept starts at the start of a line
        self.size = self.lines = self.lost_bytes = self.lost_lines = 0
        self.streams: set[str] = set()
        self.runs: deque[tuple[str, bytearray]] = deque()

    def add(self, stream: str, data: bytes) -> None:
        """Count `data` and keep it for as long as it is within the limit."""
        self.streams.add(stream)
        self.size += len(data)
        self.lines += data.count(b"\n")
        excess = len(data) - self._limit
        if excess > 0:
            self.runs.clear()
            self._kept = 0
            self._starts_line = data[excess - 1] == 10
            data = data[excess:]
        if self.runs and self.runs[-1][0] == stream:
            self.runs[-1][1].extend(data)
        else:
            self.runs.append((stream, bytearray(data)))
        self._kept += len(data)
        if self._kept > 2 * self._limit:  # not at each piece: so the cost of many small ones stays small
            self._drop(self._kept - self._limit)

    def cut(self) -> bool:
        """Cut what is kept to the limits, at the start of a line, and return whether anything is lost."""
        if self.size <= self._limit and self.lines <= self._limit_lines:
            return False
        self._drop(self._kept - self._limit)
        self._drop_lines(sum(run.count(b"\n") for _, run in self.runs) - self._limit_lines)
        if self.runs and not self._starts_line:
            run = self.runs[0][1]
            line = run.find(b"\n", 0, len(run) // 2) + 1  # a line longer than this is rather cut than lost
            self._drop(line or len(run) - len(run.lstrip(_CONTINUATION)))
        self.lost_bytes = self.size - self._kept
        self.lost_lines = self.lines - sum(run.count(b"\n") for _, run in self.runs)
        return True

    def _drop(self, count: int) -> None:
        while count > 0 and self.runs:
            run = self.runs[0][1]
            length = min(count, len(run))
            if length:
                self._starts_line = run[length - 1] == 10
            if length == len(run):
                self.runs.popleft()
            else:
                del run[:length]
            self._kept -= length
            count -= length

    def _drop_lines(self, count: int) -> None:
        while count > 0:
            run = self.runs[0][1]
            rest = run.split(b"\n", count)
            count -= len(rest) - 1
            self._drop(len(run) - (0 if count else len(rest[-1])))


def _stream(target: str) -> TextIO:
    """Return the stream as it is now: `%%capture` and front ends exchange it."""
    return sys.stderr if target == STDERR else sys.stdout


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
    except UnicodeEncodeError:  # a terminal that does not speak UTF-8 must not end the cell
        stream.write(text.encode(stream.encoding, "backslashreplace").decode(stream.encoding))


def _amount(lines: int, size: int) -> str:
    """Return such as ``52,311 lines (10.1 MB)``."""
    if size >= 1_000_000:
        space = f"{size / 1_000_000:.1f} MB"
    else:
        space = f"{size / 1000:.1f} kB" if size >= 1000 else f"{size} bytes"
    return f"{lines:,} line{'s' * (lines != 1)} ({space})" if lines else space
