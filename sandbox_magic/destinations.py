"""`Destination`: a name that a sandbox may reach, with its ports; no I/O."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from sandbox_magic.errors import InvalidOptions

DEFAULT_PORTS = (80, 443)

_WISH = re.compile(r"(?P<name>[^@:/\[\]\s]+)(?:@(?P<address>[0-9.]+|\[[0-9A-Fa-f:.]+\]))?(?::(?P<port>\d{1,5}))?")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)*{_LABEL}")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_HOW = "write NAME, *.NAME, NAME:PORT, or NAME@ADDRESS[:PORT] for one that is not on the internet"


def canonical(name: str) -> str:
    """Return a host name as it is compared: lower case, without the dot of the root; empty if it is none.

    A name whose last part is a number is none: some programs take it for an address (``127.1``, ``0x7f000001``).
    """
    name = name.lower().removesuffix(".")
    if not _NAME.fullmatch(name) or _NUMBER.fullmatch(name.rpartition(".")[2]):
        return ""
    return name


@dataclass(frozen=True, slots=True)
class Destination:
    """What may be reached.

    Attributes:
        pattern: A name; ``*.NAME`` stands for all names below it, ``*`` for all names.
        port: `None` if it was not said: then the ports of the web, 80 and 443.
        address: Where it is, whatever a resolver would say; empty: its public addresses.
    """

    pattern: str
    port: int | None = None
    address: str = ""

    @classmethod
    def parse(cls, text: str) -> Destination:
        """Return the destination that a text describes.

        Raises:
            InvalidOptions: It is none; the sentence says what can be written.
        """
        match = _WISH.fullmatch(text.strip()) if isinstance(text, str) else None
        if not match:
            raise InvalidOptions(f"network: {text!r} is not a name; {_HOW}")
        port = None if match["port"] is None else int(match["port"])
        if port is not None and not 0 < port < 1 << 16:
            raise InvalidOptions(f"network: {port} in {text!r} is not a port")
        return cls(_pattern(match["name"], text), port, _address(match["address"] or "", text))

    def covers(self, name: str, port: int) -> bool:
        """Whether it stands for this name and port; the name is canonical."""
        return self.names(name) and port in (DEFAULT_PORTS if self.port is None else (self.port,))

    def names(self, name: str) -> bool:
        """Whether it stands for this name."""
        if self.pattern.startswith("*"):
            return name.endswith(self.pattern[1:])
        return name == self.pattern

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return self.pattern + (f"@{address}" if address else "") + (f":{self.port}" if self.port else "")


def _pattern(name: str, text: str) -> str:
    below, bare = ("*.", name[2:]) if name.startswith("*.") else ("", name)
    if name == "*":
        return name
    try:
        bare = bare if bare.isascii() else bare.encode("idna").decode("ascii")
    except UnicodeError:
        bare = ""
    if not (known := canonical(bare)):
        raise InvalidOptions(f"network: {text!r} is not a name; {_HOW}")
    return below + known


def _address(written: str, text: str) -> str:
    try:
        return str(ipaddress.ip_address(written.strip("[]"))) if written else ""
    except ValueError:
        raise InvalidOptions(f"network: {written} in {text!r} is not an address") from None


def destinations(wish: str | Iterable[str | Destination]) -> tuple[Destination, ...]:
    """Return what a list, or a text with commas, asks for."""
    if not isinstance(wish, Iterable):
        raise InvalidOptions(f"network: True, False, or names, not {wish!r}; {_HOW}")
    parts = [part for part in wish.split(",") if part.strip()] if isinstance(wish, str) else wish
    found = [part if isinstance(part, Destination) else Destination.parse(part) for part in parts]
    return tuple(dict.fromkeys(found))
