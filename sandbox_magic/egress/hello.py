"""The first words of TLS: which server a client asks for, before anything is encrypted (SNI); no I/O."""

from __future__ import annotations

_HANDSHAKE = b"\x16"
_RECORD_MOST = 1 << 14  # bytes
_MALFORMED = "(malformed)"
_RECORDS_MOST = 8  # of one greeting; more pieces would have us read it again and again
UNRECOGNIZED = b"\x15\x03\x03\x00\x02\x02\x70"  # the alert that says so: fatal, unrecognized_name


class _Reader:
    """Takes fields from the front of bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, size: int) -> bytes:
        if size > len(self.data):
            raise ValueError
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def field(self, size: int) -> _Reader:
        """Take what is behind its own length."""
        return _Reader(self.take(self.number(size)))


def server_name(data: bytes) -> str | None:
    """Return the server that a client asks for; empty if it names none or does not speak TLS, `None` if more must come.

    What begins as TLS and goes on as TLS does not has a name that is none.
    """
    if data[:1] != _HANDSHAKE:
        return ""
    message, rest = b"", data
    for _ in range(_RECORDS_MOST):
        end = 5 + int.from_bytes(rest[3:5])
        if rest[:1] not in (b"", _HANDSHAKE) or end > 5 + _RECORD_MOST:
            break
        if len(rest) < max(end, 5):
            return None
        message, rest = message + rest[5:end], rest[end:]
        try:
            if len(message) >= 4 and len(message) >= 4 + int.from_bytes(message[1:4]):
                return _named(_Reader(message))
        except ValueError:
            break
    return _MALFORMED


def _named(hello: _Reader) -> str:
    if hello.number(1) != 1:
        raise ValueError
    hello = hello.field(3)
    hello.take(2 + 32)  # version and random
    for size in (1, 2, 1):  # session, ciphers, compressions
        hello.field(size)
    extensions = hello.field(2) if hello.data else hello
    names = []
    while extensions.data:
        kind, body = extensions.number(2), extensions.field(2)
        if kind == 0:
            listed = body.field(2)
            while listed.data:
                listed.take(1)  # the kind of name; there is one
                names.append(listed.field(2).data.decode("ascii"))
    if len(names) > 1:
        raise ValueError
    return names[0].lower().removesuffix(".") if names else ""
