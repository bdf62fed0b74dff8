from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sandbox_magic.ansi import AnsiFilter, Line, sanitize

# What a front end may get: printable text, colours, and four controls. Nothing else, whatever was printed.
ALLOWED = re.compile(
    r"(?:[^\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]|[\n\r\t\x08]|\x1b\[[0-9;:]{0,64}m)*+"
)

# A busy machine is no failure: no deadline.
FEW = settings(deadline=None, max_examples=50)

PIECES = (
    *(
        "\x1b",
        "[",
        "]",
        "P",
        "X",
        "^",
        "_",
        "\\",
        "(",
        "?",
        "0",
        "1",
        ";",
        ":",
        "m",
        "K",
        "J",
        "H",
        " ",
        "a",
        "\n",
        "\r",
    ),
    *("\t", "\b", "\x00", "\x07", "\x18", "\x7f", "\x85", "\x90", "\x9b", "\x9c", "\x9d", "\u202e", "\u2066", "\udc80"),
    *("\xe9", "\u72ac", "\U0001f600", "\x1b[K", "\x1b[2K", "\x1b[1K", "\x1b[31m", "\x1b]0;", "\x1b\\", "1" * 63),
)
HOSTILE_TEXT = st.lists(st.sampled_from(PIECES), max_size=20).map("".join)
LONG_TEXT = st.lists(st.sampled_from((*PIECES, "b" * 4095)), max_size=20).map("".join)


def filtered(*chunks: str, native_erase: bool = False) -> str:
    stream = AnsiFilter(native_erase=native_erase)
    return "".join(map(stream.feed, chunks)) + stream.finish()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain text\n",
        "tab\tand\bback\rreturn\n",
        "caf\xe9 \u72ac \U0001f600 \u00a0\u200d\n",
        "\x1b[31mred\x1b[0m",
        "\x1b[m",
        "\x1b[1;38;2;255;128;0mtruecolor",
        "\x1b[38:2::255:128:0mcolons\x1b[4:3m",
        f"\x1b[{'0;' * 32}mlong",
    ],
)
def test_what_is_allowed_stays_as_it_is(text: str) -> None:
    assert filtered(text) == text


@pytest.mark.parametrize(
    ("name", "text", "shown"),
    [
        ("clear screen", "a\x1b[2Jb", "ab"),
        ("cursor home", "a\x1b[Hb", "ab"),
        ("cursor up", "a\x1b[3Ab", "ab"),
        ("alternate screen", "a\x1b[?1049hb", "ab"),
        ("hide the cursor", "a\x1b[?25lb", "ab"),
        ("ask for the cursor position", "a\x1b[6nb", "ab"),
        ("ask for the terminal's kind", "a\x1b[cb\x1b[>cb", "abb"),
        ("ask for the title", "a\x1b[21tb", "ab"),
        ("private SGR is a key mode", "a\x1b[>4;2mb\x1b[?4mb", "abb"),
        ("SGR with an intermediate", "a\x1b[1 mb", "ab"),
        ("erase with a private mark", "abc\r\x1b[?Kd", "abc\rd"),
        ("intermediates", "a\x1b[1 qb", "ab"),
        ("set the title, BEL", "a\x1b]0;evil\x07b", "ab"),
        ("set the title, ST", "a\x1b]2;evil\x1b\\b", "ab"),
        ("write the clipboard", "a\x1b]52;c;ZXZpbA==\x07b", "ab"),
        ("a link in disguise", "\x1b]8;;http://evil\x1b\\bank\x1b]8;;\x1b\\", "bank"),
        ("DECRQSS", "a\x1bP$qm\x1b\\b", "ab"),
        ("sixel", "a\x1bPq#0;2;0;0;0~~\x1b\\b", "ab"),
        ("APC", "a\x1b_Gf=24;AAAA\x1b\\b", "ab"),
        ("PM", "a\x1b^secret\x1b\\b", "ab"),
        ("SOS", "a\x1bXsecret\x1b\\b", "ab"),
        ("8-bit CSI", "a\x9b2Jb", "ab"),
        ("8-bit SGR", "a\x9b31mb", "ab"),
        ("8-bit OSC and ST", "a\x9d0;evil\x9cb", "ab"),
        ("8-bit DCS", "a\x90q~~\x9cb", "ab"),
        ("8-bit SOS, PM, APC", "a\x98x\x9cb\x9ex\x9cb\x9fx\x9cb", "abbb"),
        ("other C1", "a\x80\x84\x85\x8d\x9a\x9cb", "ab"),
        ("full reset", "a\x1bcb", "ab"),
        ("save and restore the cursor", "a\x1b7b\x1b8c", "abc"),
        ("character set", "a\x1b(0b\x1b(Bc", "abc"),
        ("single shift", "a\x1bNb\x1bOc", "abc"),
        ("lone ESC before text that cannot follow", "a\x1b\xe9b", "a\xe9b"),
        ("lone ESC at the end", "a\x1b", "a"),
        ("ESC ESC", "a\x1b\x1b[31mb", "a\x1b[31mb"),
        ("ESC, NUL, then what looks like a sequence", "a\x1b\x00[2Jb", "a[2Jb"),
        ("a dropped one does not make a new one", "a\x1b\x1b[2J[2Jb", "a[2Jb"),
        ("C0 and DEL", "a\x00\x01\x05\x07\x0b\x0c\x0e\x0f\x11\x1a\x1c\x1f\x7fb", "ab"),
        ("a broken CSI ends there", "a\x1b[12\nb", "a\nb"),
        ("a CSI that begins anew", "a\x1b[12\x1b[31mb", "a\x1b[31mb"),
        ("a CSI that is too long", f"a\x1b[{'1' * 65}mb", "a1mb"),
        ("a CSI without an end", "a\x1b[12;", "a"),
        ("an OSC without an end hides its line", "a\x1b]0;never ended\nnext line\n", "a\nnext line\n"),
        ("also where lines end with CR", "a\x1b]0;never ended\r50%", "a\r50%"),
        ("a DCS without an end hides its line", "a\x1bPnever ended\nnext line\n", "a\nnext line\n"),
        ("an OSC without an end hides no colour", "a\x1b]0;never\x1b[31mred", "a\x1b[31mred"),
        ("CAN ends a string", "a\x1b]0;x\x18b", "ab"),
        ("the bound of a string", "a\x1b]" + "x" * 4096 + "b", "ab"),
        ("an erase without an effect", "a\x1b[Kb\x1b[0Kc", "abc"),
        ("grep's colours", "\x1b[01;31m\x1b[Kfound\x1b[m\x1b[K", "\x1b[01;31mfound\x1b[m"),
        ("bidi override", "\u202egpj.exe\u202c", "\\u202egpj.exe\\u202c"),
        ("bidi isolates", "\u2066a\u2069", "\\u2066a\\u2069"),
        ("a lone surrogate", "a\udc80b", "a\\udc80b"),
    ],
)
def test_hostile_sequences(name: str, text: str, shown: str) -> None:
    assert filtered(text) == shown
    assert filtered(*text) == shown


@pytest.mark.parametrize(
    ("name", "text", "shown"),
    [
        ("erase, then write", "downloading\r\x1b[Kdone\n", "downloading\r           \rdone\n"),
        ("write, then erase", "downloading\rdone\x1b[K\n", "downloading\rdone       \n"),
        ("back only if something follows", "abcdef\rxy\x1b[Kz", "abcdef\rxy    \b\b\b\bz"),
        ("the whole line", "abc\x1b[2K\rd", "abc\r   \rd"),
        ("the whole line, cursor stays", "abc\x1b[2Kd", "abc\r   d"),
        ("the whole line, cursor inside", "abcdef\rab\x1b[2Kc", "abcdef\rab\r      \r  c"),
        ("up to the cursor", "abcdef\rxyz\x1b[1K!", "abcdef\rxyz\r    \r   !"),
        ("twice costs once", "abc\r\x1b[K\x1b[K\x1b[2K\x1b[1Kd", "abc\r   \rd"),
        ("another line has its own width", "a long line\nab\r\x1b[Kc", "a long line\nab\r  \rc"),
        (
            "colours count, as JupyterLab overwrites them too",
            "\x1b[1mab\x1b[m\r\x1b[Kc",
            "\x1b[1mab\x1b[m\r         \rc",
        ),
        ("UTF-16 units", "\U0001f600\r\x1b[Kc", "\U0001f600\r  \rc"),
        ("backspace", "abc\b\b\x1b[Kd", "abc\b\b  \b\bd"),
    ],
)
def test_erase_in_line_becomes_spaces(name: str, text: str, shown: str) -> None:
    assert filtered(text) == shown
    assert filtered(*text) == shown


def test_a_real_terminal_erases_itself() -> None:
    assert filtered("abc\r\x1b[Kd\x1b[2K\x1b[2J", native_erase=True) == "abc\r\x1b[Kd\x1b[2K"


@pytest.mark.parametrize("cut_off", ["\x1b[", "\x1b]0;title"])
def test_after_the_end_of_a_stream_nothing_is_remembered(cut_off: str) -> None:
    stream = AnsiFilter()
    assert stream.feed(cut_off) + stream.finish() + stream.feed("31m") == "31m"


def test_streams_shown_as_one_share_the_line() -> None:
    line = Line()
    stdout, stderr = AnsiFilter(line), AnsiFilter(line)
    assert stdout.feed("50 %") + stderr.feed("\r\x1b[Kfailed\n") == "50 %\r    \rfailed\n"


@FEW
@given(LONG_TEXT, st.lists(st.integers(0, 9000), max_size=8))
@example("\x1b]" + "x" * 4097 + "\x1b[3", [1, 2, 4097, 4098, 4099])
@example("\x1b]" + "x" * 4097, [2, 4000])
def test_splitting_never_changes_the_result(text: str, cuts: list[int]) -> None:
    ends = sorted(min(cut, len(text)) for cut in cuts)
    chunks = [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]
    assert filtered(*chunks) == filtered(text)
    assert filtered(*chunks, native_erase=True) == filtered(text, native_erase=True)


@FEW
@given(HOSTILE_TEXT)
def test_every_single_split_gives_the_same(text: str) -> None:
    assert filtered(*text) == filtered(text)


@FEW
@given(st.text(max_size=50) | HOSTILE_TEXT)
def test_nothing_else_comes_out(text: str) -> None:
    assert ALLOWED.fullmatch(filtered(text))


@FEW
@given(HOSTILE_TEXT)
def test_memory_is_bounded(text: str) -> None:
    stream = AnsiFilter()
    for char in text:
        stream.feed(char)
        assert len(stream._held) <= 74


@FEW
@given(st.lists(st.sampled_from(["ab", "c", " ", "\n", "\r", "\x1b[K", "\x1b[0K", "\x1b[1K", "\x1b[2K"])).map("".join))
@example("abcdef\rxy\x1b[1K\x1b[Kz\x1b[2Ka")
def test_the_screen_looks_as_on_a_terminal(text: str) -> None:
    """A front end without erase-in-line, fed by us, shows what a terminal would show."""
    assert screen(filtered(text)) == screen(text)


def screen(text: str) -> list[str]:
    """Return what a terminal shows; web front ends know all of this but the erasing."""
    rows: list[list[str]] = [[]]
    column = 0
    for char in re.findall(r"\x1b\[[012]?K|[\s\S]", text):
        row = rows[-1]
        row += " " * (column + 1 - len(row))
        match char:
            case "\n":
                rows.append([])
                column = 0
            case "\r":
                column = 0
            case "\b":
                column = max(0, column - 1)
            case "\x1b[K" | "\x1b[0K":
                del row[column:]
            case "\x1b[1K":
                row[: column + 1] = " " * (column + 1)
            case "\x1b[2K":
                row.clear()
            case _:
                row[column] = char
                column += 1
    return ["".join(row).rstrip() for row in rows]


@FEW
@given(st.lists(st.sampled_from(["\x1b[K", "\x1b[1K", "\x1b[2K", "\r", "\b", "a", "a" * 300, "\n"]), max_size=60))
def test_erasing_cannot_be_used_to_flood(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert len(filtered(text)) <= 50 * len(text)


def test_erasing_a_long_line_again_and_again_is_cheap() -> None:
    text = "a" * 100_000 + "\b\x1b[1Ka\x1b[2Ka\x1b[K" * 1000
    assert len(filtered(text)) < 500_000


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("report.csv", "report.csv"),
        ("caf\xe9 \u72ac", "caf\xe9 \u72ac"),
        ("two\nlines\tand\rmore\b", "two\\nlines\\tand\\rmore\\x08"),
        ("\x1b[31mred\x1b]0;t\x07", "\\x1b[31mred\\x1b]0;t\\x07"),
        ("\x9b2J\x7f\x00", "\\x9b2J\\x7f\\x00"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("line\u2028separator", "line\\u2028separator"),
        ("\udcff", "\\udcff"),
    ],
)
def test_sanitize_shows_what_a_name_contains(text: str, shown: str) -> None:
    assert sanitize(text) == shown


@FEW
@given(st.text(max_size=50) | HOSTILE_TEXT)
def test_sanitize_gives_one_harmless_line(text: str) -> None:
    shown = sanitize(text)
    assert len(shown.splitlines()) <= 1
    assert ALLOWED.fullmatch(shown) and not re.search(r"[\x1b\n\r\t\x08]", shown)
    assert sanitize(shown) == shown


@pytest.mark.parametrize(
    "line", ["plain text, as most output is, 64 characters with the line end.\n", "caf\xe9 \u72ac\n"]
)
def test_plain_text_passes_at_full_speed(line: str) -> None:
    """20 MB take about 30 ms; the bound is loose for a busy machine and still fails for any loop over characters."""
    chunk = line * (65536 // len(line))
    stream = AnsiFilter()
    start = time.process_time()
    for _ in range(5_000_000 // len(chunk)):
        stream.feed(chunk)
    assert time.process_time() - start < 0.125
