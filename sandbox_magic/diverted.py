"""Whether a cell has left the streams of its shell elsewhere: then later cells print there, and show nothing."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

from sandbox_magic.late import meanwhile
from sandbox_magic.link import ShellLink
from sandbox_magic.outlets import led_back
from sandbox_magic.protocol import STDERR, STDOUT
from sandbox_magic.running import Run

_EXEC = re.compile(r"\bexec\b")  # in a cell that may have done so; others are not looked at
_STREAMS = {STDOUT: (1, ">"), STDERR: (2, "2>")}  # descriptors of the shell, and how they are led


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
    aside(":")  # if the shell is to print elsewhere it does so by now
    places = dict(zip(_STREAMS, link.protocol.places, strict=True))
    marks = {name: secrets.token_hex(16) for name in _STREAMS}
    lines = [
        f"\\command [ /proc/$$/fd/{fd} -ef {places[name]} ] || \\command echo {marks[name]} >{places[STDOUT]}"
        for name, (fd, _) in _STREAMS.items()
    ]
    capture = aside("\n".join(lines)).capture
    gone = [name for name, mark in marks.items() if mark.encode() in capture.stdout()]
    for output in meanwhile(capture, *(f"{mark}\n".encode() for mark in marks.values())):
        link.keep(output)
    link.led = {name: _STREAMS[name][1] for name in gone}
    return [led_back(link.led, link.protocol.places)] if gone else []
