r"""What of a terminal stream may reach a front end. No I/O.

Kept: printable text, newline, carriage return, tab, backspace, and SGR (colours). Everything else is dropped: a sandbox
must not set a window title, write to the clipboard, make the terminal type an answer, or hide what it did. Progress
bars need erase-in-line, which web front ends lack, so it is written out as spaces (see `Line`). Characters that reorder
text on the screen, and those that carry text nobody sees (tags), are shown as escapes, such as ``\u202e``.

Grammar, chosen so that the place where a chunk ends can never change the outcome:

* ESC and the C1 controls (U+0080-9F) always begin something new, also inside a string.
* A control sequence (CSI) has at most 64 characters of parameters and 8 intermediates; where it breaks this, it ends.
* A string (OSC, DCS, SOS, PM, APC) ends at a terminator, a control that begins something new, a line's end, or after
  4096 characters. What programs send to a notebook on purpose is shorter (links, titles), and a string that was never
  terminated (a binary file, a killed program) hides at most the rest of its line, not the rest of the cell.
"""

from __future__ import annotations

import re

_STRING_MAX = 4096
_SHORT = 80  # blank cells that may be written again to avoid a backspace, which deletes in JupyterLab

_BODY = r"[^\x07\n\r\x18\x1a\x1b\x80-\x9f]"
_CSI = r"[0-?]{0,64}[ -/]{0,8}"
_SGR = r"\[[0-9;:]{0,64}m"
# Bidi controls; lone surrogates, which cannot be encoded; tags, in which a whole message can be hidden.
_DECEPTIVE_CLASS = r"\u202a-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e0fff"
# In a name also what has no width or is blank, for two names must not look the same. Text has good reasons for these.
_INVISIBLE_CLASS = (
    r"\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028\u2029\u2060-\u206f\u3164\ufeff\uffa0"
    r"\ufff9-\ufffb\U0001d173-\U0001d17a"
)

_PLAIN = re.compile(rf"[^\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f{_DECEPTIVE_CLASS}]*+")
_DECEPTIVE = re.compile(f"[{_DECEPTIVE_CLASS}]")
_UNSAFE_NAME = re.compile(rf"[\x00-\x1f\x7f-\x9f{_INVISIBLE_CLASS}{_DECEPTIVE_CLASS}]")

# One character class first, the distinction by look-behind after it: so the search skips plain text at full speed.
_DROPPED = re.compile(
    rf"""[\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f]
    (?: (?<=\x1b) (?!{_SGR}|\[[0-2]?K)
        (?: \[ {_CSI} [@-~]?
          | [\]PX^_] {_BODY}{{0,{_STRING_MAX}}}
          | [ -/]{{1,8}} [0-~]?
          | [0-~]
        )?
      | (?<=\x9b) {_CSI} [@-~]?
      | (?<=[\x90\x98\x9d-\x9f]) {_BODY}{{0,{_STRING_MAX}}}
      | (?<![\x1b\x90\x98\x9b\x9d-\x9f])
    )""",
    re.VERBOSE,
)
_ERASE = re.compile(r"\x1b\[([0-2]?)K")

_LAST_START = re.compile(r"[\x1b\x80-\x9f][^\x1b\x80-\x9f]*+\Z")
_UNDECIDED = re.compile(rf"\x1b(?:\[{_CSI}|[ -/]{{0,8}})|\x9b{_CSI}")
_OPEN_STRING = re.compile(rf"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])({_BODY}{{0,{_STRING_MAX}}})")
_STRING_BODY = re.compile(f"{_BODY}*+")
_RUNS = re.compile(r"\r+|\x08+|[^\r\x08]+")


def sanitize(text: str) -> str:
    r"""Return a name or a message as one line that shows what it contains.

    Nothing is dropped, unlike in a stream of output: two different names must not look the same. Controls, bidi
    controls, newline, tab and all that cannot be seen become escapes such as ``\x1b``, ``\u202e`` and ``\n``.
    """
    return _UNSAFE_NAME.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


class Line:
    """The front end's current line, so that erase-in-line can be written out as spaces.

    Cells are counted as JupyterLab and VS Code count them: one for each UTF-16 unit, colours included, because there an
    overwritten colour sequence leaves garbage. Streams that are shown as one share one `Line`.
    """

    __slots__ = ("_blank", "_column", "_shown_at", "_width")

    def __init__(self) -> None:
        self._column = 0  # where the program believes the cursor is
        self._shown_at = 0  # where the front end's cursor is; it comes back when something is to be printed there
        self._width = 0  # every cell from here on is blank
        self._blank = 0  # every cell before this one is blank

    def write(self, text: str) -> str:
        r"""Return `text`, which holds nothing but printable text, colours and ``\n\r\t\b``, ready to be shown."""
        back = ""
        if self._shown_at != self._column and text[0] not in "\r\n":
            back = self._move(self._column)
        start = text.rfind("\n") + 1
        if start:
            self._column = self._width = self._blank = 0
        for run in _RUNS.findall(text, start):
            if run[0] == "\r":
                self._column = 0
            elif run[0] == "\b":
                self._column = max(0, self._column - len(run))
            else:
                self._blank = self._column if self._blank >= self._width else min(self._blank, self._column)
                self._column += len(run) if run.isascii() else len(run.encode("utf-16-le")) // 2
                self._width = max(self._width, self._column)
        self._shown_at = self._column
        return back + text

    def erase(self, mode: str) -> str:
        """Return the text that erases to the line's end (``""``, ``"0"``), to its start (``"1"``), or all (``"2"``)."""
        first = 0 if mode in {"1", "2"} else self._column
        last = self._column + 1 if mode == "1" else self._width
        first, last = max(first, self._blank), min(last, self._width)
        shown = ""
        if first < last:
            shown = self._move(first) + " " * (last - first)
            self._shown_at = last
        if mode == "2" or (mode == "1" and last == self._width):
            self._width, self._blank = 0, max(self._column, self._shown_at)
        elif mode == "1":
            self._blank = max(self._blank, last)
        else:
            self._width = min(self._width, self._column)
        return shown

    def _move(self, column: int) -> str:
        """Return the text that moves the front end's cursor; forward it only ever passes blank cells."""
        distance, self._shown_at = column - self._shown_at, column
        if distance >= 0:
            return " " * distance
        if column <= self._blank and column <= max(_SHORT, -distance):
            return "\r" + " " * column
        return "\b" * -distance


class AnsiFilter:
    """Filters one stream, chunk by chunk; memory is bounded by the longest control sequence (73 characters).

    Args:
        line: The line on the front end, if another stream writes there too.
        native_erase: The text goes to a real terminal, which knows erase-in-line itself: keep it as it is.
    """

    __slots__ = ("_held", "_line", "_native_erase", "_to_skip")

    def __init__(self, line: Line | None = None, *, native_erase: bool = False) -> None:
        self._line = line or Line()
        self._native_erase = native_erase
        self._held = ""  # the beginning of what may become a control sequence
        self._to_skip = 0  # how much longer the open string can be

    def feed(self, text: str) -> str:
        """Return what of `text`, and of what was held back before, may be shown."""
        if self._to_skip:
            text = self._skip_string(text)
        if self._held:
            text, self._held = self._held + text, ""
        if not _PLAIN.fullmatch(text):
            text = _DROPPED.sub("", self._hold_back(text))
            text = _DECEPTIVE.sub(_escape, text)
            if not self._native_erase:
                return self._write_out(text)
        return self._line.write(text) if text else ""

    def finish(self) -> str:
        """Return the rest at the end of the stream: always nothing, as a sequence that was cut off is dropped."""
        self._held, self._to_skip = "", 0
        return ""

    def _write_out(self, text: str) -> str:
        pieces = _ERASE.split(text)  # text, mode, text, mode, ..., text
        line = self._line
        for index, piece in enumerate(pieces):
            if index % 2:
                pieces[index] = line.erase(piece)
            elif piece:
                pieces[index] = line.write(piece)
        return "".join(pieces)

    def _hold_back(self, text: str) -> str:
        """Return `text` without a sequence or string at its end that the next chunk may continue."""
        start = _LAST_START.search(text, max(0, len(text) - _STRING_MAX - 2))
        if start is None:
            return text
        if _UNDECIDED.fullmatch(text, start.start()):
            self._held = start[0]
        elif string := _OPEN_STRING.fullmatch(text, start.start()):
            self._to_skip = _STRING_MAX - len(string[1])
        else:
            return text
        return text[: start.start()]

    def _skip_string(self, text: str) -> str:
        body = _STRING_BODY.match(text)
        length = min(body.end() if body else 0, self._to_skip)
        self._to_skip = self._to_skip - length if length == len(text) else 0
        return text[length:]
