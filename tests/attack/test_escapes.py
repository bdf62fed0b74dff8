"""Output that wants to act on the terminal: through our filter, then through a model of a terminal that tells on it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from escape_corpus import ESCAPES
from terminal_model import acts, harmless

from sandbox_magic import InvalidOptions, Sandbox
from sandbox_magic.ansi import sanitize
from sandbox_magic.errors import CommandFailed, EngineError, TransferError
from sandbox_magic.jupyter.control import table
from sandbox_magic.jupyter.status import one_line
from sandbox_magic.jupyter.view import CellView
from sandbox_magic.members import shown
from sandbox_magic.protocol import STDERR, STDOUT, Output
from sandbox_magic.result import Result


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown_as(pieces: Iterator[bytes] | list[bytes], *, terminal: bool, stream: str = STDOUT) -> str:
    """Return what a cell shows of this output."""
    before = sys.stdout
    sys.stdout = written = Terminal() if terminal else io.StringIO()
    try:
        view = CellView(interval=0, rate=1e12)
        for piece in pieces:
            view.show(Output(stream, piece))
        view.finish()
    finally:
        sys.stdout = before
    return written.getvalue()


def corpus() -> list[object]:
    return [pytest.param(name, marks=pytest.mark.attack("output", f"print: {name}")) for name in ESCAPES]


def test_the_model_tells() -> None:
    """Most of the corpus does something to a terminal when nobody filters it."""
    acting = [name for name, text in ESCAPES.items() if acts(text)]
    assert len(acting) > len(ESCAPES) // 3
    assert {"CSI H", "mode 25", "OSC 2", "full reset", "ask for the kind (DA1)"} <= set(acting)


@pytest.mark.parametrize("name", corpus())
def test_only_text_and_colours_arrive(name: str) -> None:
    """Wherever the output happens to be cut: not at all, at every byte, and in two at each of the first forty."""
    data = ESCAPES[name].encode("utf-8", "surrogatepass")
    for terminal in (False, True):
        whole = shown_as([data], terminal=terminal)
        harmless(whole, terminal=terminal)
        assert shown_as([data[at : at + 1] for at in range(len(data))], terminal=terminal) == whole
        for cut in range(1, min(len(data), 40)):
            assert shown_as([data[:cut], data[cut:]], terminal=terminal) == whole
        assert "evil\x07" not in whole and "\x1b]" not in whole
    not_utf_8, headless, endless = ESCAPES[name].encode("latin-1", "replace"), data[1:], data[:-1]
    for raw in (not_utf_8, headless, endless):
        harmless(shown_as([raw], terminal=False))


SINKS: dict[str, Callable[[str], str]] = {
    "a file's name": shown,
    "a message of ours": sanitize,
    "the status line": one_line,
    "a row of a table": lambda text: table([("job", text, "running")]),
    "the display of a result": lambda text: repr(_result(text)),
    "the page of a result": lambda text: _result(text)._repr_mimebundle_()["text/html"],
    "any error of ours": lambda text: "".join(EngineError(text.replace("\n", " "))._render_traceback_()),
    "a note to a failed command": lambda text: "".join(
        CommandFailed(replace(_result("x"), notes=(text.replace("\n", " "),)))._render_traceback_()
    ).partition("\n")[2],
    "a failed transfer": lambda text: "".join(TransferError(f"get: {shown(text)}")._render_traceback_()),
    "a failed command": lambda text: "".join(CommandFailed(_result(text))._render_traceback_()),
}


class _Printed:
    truncated = False

    def __init__(self, text: str) -> None:
        self.stdout = self.stderr = self.output = lambda: text.encode("utf-8", "surrogatepass")


def _result(text: str) -> Result:
    return Result("true", 1, 0.1, _Printed(text))


@pytest.mark.parametrize(
    "sink", [pytest.param(sink, marks=pytest.mark.attack("output", f"the corpus as {sink}")) for sink in SINKS]
)
def test_names_and_messages_pass_a_filter_too(sink: str) -> None:
    for text in ESCAPES.values():
        told = SINKS[sink](text)
        harmless(told)
        assert "\x1b" not in told and "\n" not in told.strip()
        assert not {char for char in told if 0xE0000 <= ord(char) <= 0xE0FFF or char in "\u202e\u2066"}
        if "page" in sink:
            assert "<script" not in told and "<img" not in told


@pytest.mark.attack("output", "the corpus as a piece of output that a program prints")
def test_a_piece_that_is_printed() -> None:
    for text in ESCAPES.values():
        harmless(str(Output(STDOUT, text.encode("utf-8", "surrogatepass"))), terminal=True)


@pytest.mark.attack("output", "have the shell answer with escapes when a folder or a variable cannot be set")
def test_a_refusal_that_the_shell_words() -> None:
    with Sandbox(engine="bubblewrap") as box:
        box.run("set -x; PS4=$'\\e]0;evil\\a'; trap 'printf \"\\033]52;c;evil\\007\" >&2' DEBUG; readonly X=1")
        for wish in ({"cwd": "/nope"}, {"env": {"X": "2"}}):
            with pytest.raises(InvalidOptions, match="cannot be set") as refusal:
                box.run("true", **wish)  # type: ignore[arg-type] # one of two
            harmless(str(refusal.value))
            assert "\x1b" not in str(refusal.value)


@pytest.mark.attack("output", "an escape begun on stdout and ended on stderr")
def test_one_stream_does_not_end_the_others_escape() -> None:
    before = sys.stdout
    sys.stdout = written = io.StringIO()
    try:
        view = CellView(interval=0, rate=1e12)
        pieces = [b"a\x1b]0;ev", b"il\x07[2J", b"il\x07b\x1b", b"[2Jc"]
        for stream, piece in zip([STDOUT, STDERR] * 2, pieces, strict=True):
            view.show(Output(stream, piece))
        view.finish()
    finally:
        sys.stdout = before
    harmless(written.getvalue())
