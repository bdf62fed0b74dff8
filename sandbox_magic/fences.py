"""`Stream`: finds the fences in the bytes of one output stream, across reads; see protocol.py."""

from __future__ import annotations

from collections.abc import Iterable

from sandbox_magic.errors import ProtocolError

RS = b"\x1e"
TOKEN = 8  # hexadecimal digits; with the prefix 96 random bits, short because bash reads its lines byte by byte
FENCE_MAX = 160  # bytes after the marker: a word, a number or two, or the path of a shell


class Stream:
    """One output stream: what has come and is not yet understood, and whether that is a cell's."""

    def __init__(self, prefix: bytes) -> None:
        self.buffer = bytearray()
        self.marker = RS + prefix
        self.inside = False

    def take(self) -> Iterable[bytes | tuple[bytes, list[bytes]]]:
        """Yield runs of plain bytes, and fences as (token, words); keep back what may become a fence."""
        buffer, marker = self.buffer, self.marker
        while True:
            at = buffer.find(marker)
            if at < 0:
                at = self._held_back()
                if at:
                    yield bytes(buffer[:at])
                    del buffer[:at]
                return
            end = buffer.find(b"\n", at, at + len(marker) + TOKEN + FENCE_MAX)
            if end < 0 and len(buffer) - at >= len(marker) + TOKEN + FENCE_MAX:
                raise ProtocolError("a fence of the shell has no end")
            if at:
                yield bytes(buffer[:at])
            if end < 0:
                del buffer[:at]
                return
            body = bytes(buffer[at + len(marker) : end])
            del buffer[: end + 1]
            yield body[:TOKEN], body[TOKEN:].split()

    def _held_back(self) -> int:
        """Return where the part begins that could be the start of a marker."""
        at = self.buffer.rfind(RS, max(0, len(self.buffer) - len(self.marker) + 1))
        while at >= 0 and not self.marker.startswith(self.buffer[at:]):
            at = self.buffer.rfind(RS, max(0, len(self.buffer) - len(self.marker) + 1), at)
        return len(self.buffer) if at < 0 else at


def number(text: bytes) -> int:
    """Return a number that a fence holds; `ProtocolError` if it is none."""
    if not text.isdigit() or len(text) > 9:
        raise ProtocolError(f"a fence of the shell holds {text[:20]!r} where a number must be")
    return int(text)
