"""What the headers of a tar archive say, checked: every byte of it was chosen by a sandbox. No I/O.

Read are ustar, GNU's long names and pax's path and size; everything else that changes a member's meaning is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox_magic.ansi import sanitize
from sandbox_magic.errors import TransferError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_MAX_NAME = 255
_MAX_PATH = 4096
MAX_EXTENSION = {b"L": _MAX_PATH + 1, b"K": _MAX_PATH + 1, b"x": 1 << 16}
JOINERS = {0x200C: None, 0x200D: None}  # cannot be seen, but many scripts and emoji are written with them
_DEVICES = {"con", "prn", "aux", "nul", *(port + digit for port in ("com", "lpt") for digit in "123456789")}
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a fifo",
    b"7": "a contiguous file",
    b"S": "a sparse file",
}


def shown(name: str | bytes | Path) -> str:
    """Return a name for a message, shortened, with everything escaped that could act on a terminal."""
    text = name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else str(name)
    if len(text) > _MAX_NAME:
        text = text[:_MAX_NAME] + "..."
    return f"'{sanitize(text)}'"


@dataclass(frozen=True, slots=True)
class Member:
    """What a header announces, checked."""

    parts: tuple[str, ...]
    is_folder: bool
    size: int
    executable: bool


def parse_member(block: bytes, extensions: Mapping[bytes, bytes]) -> Member:
    """Return the member that a header and the extensions before it describe."""
    pax = _parse_pax(extensions.get(b"x", b""))
    raw = block[:100].split(b"\0", 1)[0]
    if block[257:265] == b"ustar\x0000" and block[345] != 0:
        raw = block[345:500].split(b"\0", 1)[0] + b"/" + raw
    raw = pax.get(b"path", extensions.get(b"L", raw).removesuffix(b"\0"))
    kind = b"S" if any(key.startswith(b"GNU.sparse.") for key in pax) else block[156:157]
    if kind not in {b"0", b"\0", b"5"}:
        advice = "copy what links point to (cp -rL) and get the copy" if kind in {b"1", b"2"} else "leave it out"
        what = _KINDS.get(kind, f"of the unknown type {shown(kind)}")
        raise TransferError(f"{shown(raw)} is {what}; only regular files and folders are copied: {advice}")
    size = parse_number(block[124:136])
    if b"size" in pax:
        size = _decimal(pax[b"size"])
    if kind == b"5" and size:
        raise TransferError(f"damaged archive: the folder {shown(raw)} has contents of its own")
    parts = _parse_name(raw)
    if kind != b"5" and (raw.endswith((b"/", b"/.")) or not parts):
        raise TransferError(f"damaged archive: {shown(raw)} is the name of a folder, but a file has it")
    return Member(parts, kind == b"5", size, bool(parse_number(block[100:108]) & 0o100))


def _parse_name(raw: bytes) -> tuple[str, ...]:
    """Return the components of a member's name; ``.`` and empty ones mean nothing and are dropped."""
    if raw.startswith(b"/") or not raw:
        raise TransferError(f"the name {shown(raw)} is refused: it is {'absolute' if raw else 'empty'}")
    if len(raw) > _MAX_PATH:
        raise TransferError(f"the name {shown(raw)} is refused: it is longer than {_MAX_PATH} bytes")
    parts = tuple(part for part in raw.split(b"/") if part not in {b"", b"."})
    return tuple(parse_part(part) for part in parts)


def parse_part(raw: bytes) -> str:
    """Return one component of a name that means the same on every host and in every terminal."""
    try:
        part = raw.decode()
    except UnicodeDecodeError:
        raise TransferError(f"the name {shown(raw)} is refused: it is not UTF-8") from None
    reason = ""
    if part == "..":
        reason = "it leads out of the target"
    elif len(raw) > _MAX_NAME:
        reason = f"it is longer than {_MAX_NAME} bytes"
    elif sanitize(seen := part.translate(JOINERS)) != seen:
        reason = "it holds control characters, or some that cannot be seen"
    elif part.split(".")[0].rstrip().lower() in _DEVICES or "\\" in part:
        reason = "it means something else on Windows"
    if reason:
        raise TransferError(f"the name {shown(part)} is refused: {reason}; use another name")
    return part


def parse_number(field: bytes) -> int:
    """Return a number of a header: octal, or GNU's base 256 for large ones."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not digits or digits.strip(b"01234567"):
        raise TransferError(f"damaged archive: {shown(field)} is no number")
    return int(digits, 8)


def _decimal(digits: bytes) -> int:
    """Return a number of a pax record."""
    if not digits.isdigit() or len(digits) > 20:
        raise TransferError(f"damaged archive: {shown(digits)} is no number")
    return int(digits)


def _parse_pax(data: bytes) -> dict[bytes, bytes]:
    """Return the records of a pax header, each ``LENGTH KEY=VALUE`` and a newline."""
    records: dict[bytes, bytes] = {}
    while data:
        length = _decimal(data[:21].split(b" ", 1)[0])
        key, equals, value = data[:length].partition(b" ")[2].partition(b"=")
        if not key or not equals or length > len(data) or not value.endswith(b"\n") or key in records:
            raise TransferError(f"damaged archive: {shown(data[:64])} is no pax record")
        records[key] = value[:-1]
        data = data[length:]
    return records
