"""`Capture`: the output of one run, kept whole up to a cap; in memory first, then in a temporary file."""

from __future__ import annotations

import tempfile
from array import array
from typing import IO

from sandbox_magic.protocol import STDERR, STDOUT, Output

IN_MEMORY = 8 << 20
KEPT = 64 << 20


class Capture:
    """What one run printed, in order of arrival.

    Attributes:
        size: How many bytes were printed, also those that were not kept.
        truncated: Whether something was not kept.
    """

    def __init__(self, *, in_memory: int = IN_MEMORY, kept: int = KEPT) -> None:
        self.size = 0
        self.truncated = False
        self._in_memory = in_memory
        self._left = self._kept = kept
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self._runs = array("q")  # lengths of runs of one stream; negative for stderr

    def add(self, output: Output) -> None:
        """Keep a piece of output, or as much of it as the cap allows."""
        data = output.data
        self.size += len(data)
        if len(data) > self._left:
            self.truncated = True
            data = data[: self._left]
        if not data:
            return
        if self._file is None and len(self._memory) + len(data) > self._in_memory:
            self._file = tempfile.TemporaryFile(prefix="sandbox-output-")  # noqa: SIM115 # lives as long as this
            self._file.write(self._memory)
            self._memory.clear()
        if self._file is None:
            self._memory += data
        else:
            self._file.write(data)
        self._left -= len(data)
        length = len(data) if output.stream == STDOUT else -len(data)
        if self._runs and (self._runs[-1] > 0) == (length > 0):
            self._runs[-1] += length
        else:
            if self._runs:
                self._left -= self._runs.itemsize  # so that output in single bytes stays bounded too
            self._runs.append(length)

    def remarks(self) -> tuple[str, ...]:
        """Say what was not kept, if something was not."""
        if not self.truncated:
            return ()
        cut = f"{self.size >> 20} MB were printed and only the first {self._kept >> 20} MB are kept"
        return (f"{cut}: let the command write to a file, and copy that out (%sandboxctl get, Sandbox.get)",)

    def output(self) -> bytes:
        """Return both streams in order of arrival."""
        if self._file is None:
            return bytes(self._memory)
        self._file.seek(0)
        return self._file.read()

    def stdout(self) -> bytes:
        """Return what went to stdout."""
        return self._only(1)

    def stderr(self) -> bytes:
        """Return what went to stderr."""
        return self._only(-1)

    def _only(self, sign: int) -> bytes:
        whole = self.output()
        pieces, at = [], 0
        for length in self._runs:
            if length * sign > 0:
                pieces.append(whole[at : at + abs(length)])
            at += abs(length)
        return b"".join(pieces)

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (self.output(), self._runs.tolist(), self.size, self.truncated)


def _restored(data: bytes, runs: list[int], size: int, truncated: bool) -> Capture:
    """Return a capture that was pickled; it is in memory whatever its size."""
    capture = Capture(in_memory=len(data))
    at = 0
    for length in runs:
        capture.add(Output(STDOUT if length > 0 else STDERR, data[at : at + abs(length)]))
        at += abs(length)
    capture.size, capture.truncated = size, truncated
    return capture
