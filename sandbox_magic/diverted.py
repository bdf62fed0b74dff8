"""Whether a cell has left the streams of its shell elsewhere: then later cells print there, and show nothing."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

from sandbox_magic.link import ShellLink
from sandbox_magic.protocol import STDERR, STDOUT, LateOutput
from sandbox_magic.running import Run

_EXEC = re.compile(r"\bexec\b")  # in a cell that may have done so; others are not looked at
_STREAMS = {STDOUT: (1, ">"), STDERR: (2, "2>")}  # descriptors of the shell


def diverted(code: str, link: ShellLink, aside: Callable[[str], Run]) -> list[str]:
    """Say which streams of a shell do not lead to us any more after a cell, and how they are brought back.

    The shell is asked itself, and not looked at from outside, where it may be in the middle of lines of ours.

    Args:
        code: The cell.
        link: The stream to the shell.
        aside: Runs code of ours in it.
    """
    if not _EXEC.search(code):
        return []
    places = dict(zip(_STREAMS, link.protocol.places, strict=True))
    marks = {name: secrets.token_hex(16) for name in _STREAMS}
    lines = [
        f"\\command [ /proc/$$/fd/{fd} -ef {places[name]} ] || \\command echo {marks[name]} >{places[STDOUT]}"
        for name, (fd, _) in _STREAMS.items()
    ]
    capture = aside("\n".join(lines)).capture
    said = capture.stdout()
    gone = [name for name, mark in marks.items() if mark.encode() in said]
    _keep(link, STDOUT, said, list(marks.values()))
    _keep(link, STDERR, capture.stderr(), list(places.values()))  # after `set -x` or `set -v` it shows our lines
    if not gone:
        return []
    back = " ".join(f"{_STREAMS[name][1]}{places[name]}" for name in gone)
    return [f"later cells show no {' and '.join(gone)} either: it was led elsewhere; `exec {back}` brings it back"]


def _keep(link: ShellLink, stream: str, data: bytes, mine: list[str]) -> None:
    """Keep what a background job has printed meanwhile."""
    rest = b"".join(line for line in data.splitlines(keepends=True) if not any(part.encode() in line for part in mine))
    if rest:
        link.keep(LateOutput(stream, rest))
