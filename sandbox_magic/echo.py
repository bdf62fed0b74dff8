"""`Echo`: what a command prints, written here as it comes, for programs and terminals."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Callable

from sandbox_magic.ansi import AnsiFilter
from sandbox_magic.protocol import STDERR, STDOUT, Output


class Echo:
    """Writes to `sys.stdout` and `sys.stderr`, without what would steer a terminal; make one for each run.

    A piece of output may end anywhere, in a character or a control sequence: what is not whole waits for the rest.
    """

    def __init__(self, also: Callable[[Output], object] | None = None) -> None:
        """Make one; `also` is called with each piece, too."""
        self._also = also
        self._decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in (STDOUT, STDERR)}
        self._filters: dict[str, AnsiFilter] = {}

    def __call__(self, output: Output) -> None:
        """Write a piece of output."""
        target = sys.stderr if output.stream == STDERR else sys.stdout
        if output.stream not in self._filters:
            self._filters[output.stream] = AnsiFilter(None, native_erase=target.isatty())
        target.write(self._filters[output.stream].feed(self._decoders[output.stream].decode(output.data)))
        target.flush()
        if self._also is not None:
            self._also(output)
