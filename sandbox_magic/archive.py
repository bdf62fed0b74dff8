"""Tar archives: what is sent into a sandbox is packed here, what comes out of one is written here.

An archive from a sandbox is hostile by definition, so `Unpacker` is a reader and a writer of our own: nothing but
regular files and folders, no name that means something else on any host, no link followed, nothing outside the target.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
import time
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox_magic.errors import TransferError
from sandbox_magic.landing import Landing, reporting
from sandbox_magic.members import JOINERS, MAX_EXTENSION, Member, parse_member, parse_number, parse_part, shown
from sandbox_magic.reaching import reached

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_CHUNK = 1 << 20  # the most that one chunk of `pack` holds
_BLOCK = 512
_RECORD = 20 * _BLOCK  # what `tar -x` reads at once
_MAX_DEPTH = 64
_MAX_TAIL = 1 << 20  # zeros after the end: GNU tar fills its record, a hostile one could send them for ever


# Into a sandbox


def pack(source: Path, name: str, shared: Iterable[Path] = ()) -> Iterator[bytes]:
    """Return the chunks of an uncompressed tar stream of a file or folder.

    Only regular files and folders are packed, with owner 0, no owner names, and mode 0755 or 0644. `source` itself may
    be a symbolic link, for the user named it; a link inside a folder is refused, since following it could send a file
    that nobody named, and leaving it out would be silent. Everything is looked at, and refused, before this returns;
    it is looked at again while the chunks are made, since the folder may be shared with a sandbox. A file that grows
    meanwhile is packed as long as it was when it was opened.

    Args:
        source: The host's file or folder.
        name: Its name in the archive, relative and without ``.`` or ``..``.
        shared: Folders that a sandbox may change: no link of these is followed.

    Returns:
        Chunks of at most 1 MiB, in all a multiple of 10240 bytes, so that a `tar -x` that never sees an end of file
        has read everything.

    Raises:
        TransferError: Something cannot be read or may not be packed, or, while the chunks are made, it changed.
    """
    if any(part in {"", ".", ".."} for part in name.split("/")) or "\0" in name:
        raise TransferError(f"{shown(name)} cannot be a name in an archive")
    shared = tuple(shared)
    for _ in _opened(source, name, shared):
        pass
    return _chunks(_blocks(_opened(source, name, shared)))


@dataclass(frozen=True, slots=True)
class _Source:
    """An open file or folder of the host; `descriptor` is valid until the next one is asked for."""

    path: Path
    name: str
    descriptor: int
    status: os.stat_result


def _opened(source: Path, name: str, shared: tuple[Path, ...]) -> Iterator[_Source]:
    """Open what is to be packed, folders before what they hold, without ever following a link below the first."""
    with reporting(f"read {shown(source)}"), reached(source, shared) as (parent, entry):
        yield from _walk(source, name, parent, entry)


def _walk(path: Path, name: str, parent: int, entry: str, depth: int = 1) -> Iterator[_Source]:
    if depth > _MAX_DEPTH:
        raise TransferError(f"{shown(path)} is more than {_MAX_DEPTH} folders deep")
    with reporting(f"read {shown(path)}"):
        _check_source(path, os.stat(entry, dir_fd=parent, follow_symlinks=False))
        descriptor = os.open(entry, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW, dir_fd=parent)
    try:
        status = os.fstat(descriptor)
        _check_source(path, status)
        yield _Source(path, name, descriptor, status)
        if stat.S_ISDIR(status.st_mode):
            with reporting(f"read {shown(path)}"):
                entries = sorted(os.listdir(descriptor))  # noqa: PTH208 # pathlib cannot list an open folder
            for below in entries:
                yield from _walk(path / below, f"{name}/{below}", descriptor, below, depth + 1)
    finally:
        os.close(descriptor)


def _check_source(path: Path, status: os.stat_result) -> None:
    """Refuse what is neither a regular file nor a folder."""
    if stat.S_ISLNK(status.st_mode):
        raise TransferError(f"{shown(path)} is a symbolic link inside the folder: copy the folder with `cp -rL` first")
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise TransferError(f"{shown(path)} is neither a regular file nor a folder: move it away first")


def _blocks(items: Iterator[_Source]) -> Iterator[bytes]:
    """Yield the headers and the contents, each filled up to whole blocks."""
    for item in items:
        header = tarfile.TarInfo(item.name)
        header.mtime = max(0, min(int(item.status.st_mtime), int(time.time())))
        if stat.S_ISDIR(item.status.st_mode):
            header.type, header.mode = tarfile.DIRTYPE, 0o755
        else:
            header.size, header.mode = item.status.st_size, 0o755 if item.status.st_mode & 0o100 else 0o644
        # The GNU format, because busybox's tar reads its long names but not those of pax.
        yield header.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
        if stat.S_ISREG(item.status.st_mode):
            yield from _content(item)


def _content(item: _Source) -> Iterator[bytes]:
    """Yield as many bytes of a file as its header promised, and what fills the last block."""
    size = left = item.status.st_size
    with reporting(f"read {shown(item.path)}"):
        if not size and os.read(item.descriptor, 1):  # as the files of /proc, which would arrive empty
            raise TransferError(f"{shown(item.path)} does not tell its size: copy it to a regular file first")
        while left:
            data = os.read(item.descriptor, min(left, _CHUNK))
            if not data:
                raise TransferError(f"{shown(item.path)} became shorter while it was read: transfer it again")
            left -= len(data)
            yield data
    yield bytes(-size % _BLOCK)


def _chunks(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Join blocks into chunks, end the archive and fill its last record."""
    pending = bytearray()
    total = 2 * _BLOCK
    for block in blocks:
        total += len(block)
        pending += block
        while len(pending) >= _CHUNK:
            yield bytes(pending[:_CHUNK])
            del pending[:_CHUNK]
    pending += bytes(2 * _BLOCK + -total % _RECORD)
    for start in range(0, len(pending), _CHUNK):
        yield bytes(pending[start : start + _CHUNK])


# Out of a sandbox


@dataclass(frozen=True, slots=True)
class _Claim:
    """A name that a member has (`explicit`), or that the path of one implies."""

    path: str
    folder: bool
    explicit: bool


class Unpacker:
    """Writes an archive, fed in pieces of any size, below one folder of the host.

    An existing regular file is replaced, atomically and only by `finish`; existing folders are merged. Whatever raises
    has removed all that this transfer wrote. Always end with `finish` or `abort`.

    Refused are: everything but regular files and folders; names that are absolute, lead out, hold control characters,
    are not UTF-8, are longer than 255 bytes or reserved on Windows; two members whose names are the same, or would be
    on a host that ignores case; a link where a folder or file is to be written. Owners, times, attributes and all mode
    bits but the owner's x are ignored.

    Args:
        target: The folder to write into; not a symbolic link.
        rename: What the archive's single file or folder shall be called. Without it the archive, that is the
            sandbox, chooses the names in `target`.
        max_bytes: The most that all files together may hold.
        max_files: The most files and folders.
        max_depth: The most components of a name.
        shared: Folders that a sandbox may change: on the way to the target no link of these is followed.

    Raises:
        TransferError: By every method but `abort`. The sentence says what was refused and what to do.
    """

    def __init__(
        self,
        target: Path,
        *,
        rename: str | None = None,
        max_bytes: int = 1 << 30,
        max_files: int = 10_000,
        max_depth: int = _MAX_DEPTH,
        shared: Iterable[Path] = (),
    ) -> None:
        self._rename = None if rename is None else parse_part(rename.encode("utf-8", "surrogatepass"))
        if rename is not None and (rename in {"", "."} or "/" in rename):
            raise TransferError(f"{shown(rename)} is no name of a file or folder")
        self._max_bytes, self._max_files, self._max_depth = max_bytes, max_files, max_depth
        self._target = target
        self._landing = Landing(target, shared)
        self._ended = False
        self._buffer = bytearray()  # a header or an extension, as far as it has come
        self._wanted = _BLOCK  # how long it will be
        self._collecting = b""  # the kind of the extension; nothing if it is a header
        self._extensions: dict[bytes, bytes] = {}  # for the next member
        self._left = 0  # bytes of the open file still to come
        self._skip = 0  # bytes that fill its last block
        self._executable = False
        self._tail = 0  # zero bytes at the end, once it was reached
        self._written = 0  # bytes in all files
        self._top: str | None = None  # the first component of the first name
        self._seen: dict[str, _Claim] = {}

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the archive and write what they hold."""
        with self._guarded():
            view = memoryview(data)
            while view:
                view = view[self._take(view) :]

    def finish(self) -> list[Path]:
        """Give the files their names once all has come; return their paths in the archive's order, without folders."""
        with self._guarded():
            if self._tail < 2 * _BLOCK:
                raise TransferError("the archive was cut off before its end: nothing was kept; transfer it again")
            names = self._landing.commit()
            self._ended = True
            self._landing.close()
        return [self._target.joinpath(*parts) for parts in names]

    def abort(self) -> None:
        """Remove what was written so far. Does nothing after the end."""
        if not self._ended:
            self._ended = True
            try:
                self._landing.undo()
            finally:
                self._landing.close()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """Let nothing stay behind, whatever is raised."""
        if self._ended:
            raise TransferError("this transfer has ended")
        try:
            with reporting(f"write to {shown(self._target)}"):
                yield
        except BaseException:
            self.abort()
            raise

    def _take(self, view: memoryview) -> int:
        """Use the beginning of what came; return how much of it."""
        if self._left:
            taken = min(self._left, len(view))
            self._landing.write(view[:taken])
            self._left -= taken
            self._written += taken
            if not self._left:
                self._landing.close_file(executable=self._executable)
        elif self._skip:
            taken = min(self._skip, len(view))
            self._skip -= taken
        elif self._tail:
            taken = len(view)
            self._tail += taken
            if self._tail > _MAX_TAIL or any(view):
                raise TransferError("damaged archive: it goes on after its end")
        else:
            taken = min(self._wanted - len(self._buffer), len(view))
            self._buffer += view[:taken]
            if len(self._buffer) == self._wanted:
                block = bytes(self._buffer)
                self._buffer.clear()
                self._complete(block)
        return taken

    def _complete(self, data: bytes) -> None:
        """Use a whole header or extension."""
        if self._collecting:
            self._extensions[self._collecting] = data
            self._skip = -len(data) % _BLOCK
            self._collecting, self._wanted = b"", _BLOCK
        elif any(data):
            self._read_header(data)
        elif self._extensions:
            raise TransferError("damaged archive: it ends with a name that no member has")
        else:
            self._tail = len(data)

    def _read_header(self, block: bytes) -> None:
        if parse_number(block[148:156]) != sum(block[:148]) + 8 * ord(" ") + sum(block[156:]):
            raise TransferError("damaged archive: the checksum of a header is wrong; transfer it again")
        kind = block[156:157]
        if kind in MAX_EXTENSION:
            size = parse_number(block[124:136])
            if kind in self._extensions or not 0 < size <= MAX_EXTENSION[kind]:
                raise TransferError(f"damaged archive: a name or its attributes come twice or are {size} bytes long")
            self._collecting, self._wanted = kind, size
            return
        member = parse_member(block, self._extensions)
        self._extensions = {}
        self._begin(member, self._place(member.parts, folder=member.is_folder))

    def _begin(self, member: Member, parts: tuple[str, ...]) -> None:
        """Make a member's folder or start its file."""
        if member.size > self._max_bytes - self._written:  # a header may lie, so what really came is counted too
            raise TransferError(
                f"{shown('/'.join(parts))} would make it more than {self._max_bytes} bytes, the limit of a transfer: "
                "nothing was kept; get less at once"
            )
        if member.is_folder:
            self._landing.make_folder(parts)
            return
        self._landing.open_file(parts)
        self._executable = member.executable
        self._left, self._skip = member.size, -member.size % _BLOCK
        if not member.size:
            self._landing.close_file(executable=member.executable)

    def _place(self, parts: tuple[str, ...], *, folder: bool) -> tuple[str, ...]:
        """Return where a member goes, if it may go there."""
        if len(parts) > self._max_depth:
            raise TransferError(f"{shown('/'.join(parts))} is more than {self._max_depth} folders deep")
        if self._rename is not None:
            if not parts or self._top not in {None, parts[0]}:
                raise TransferError(f"{shown('/'.join(parts))} is not in the one file or folder that was asked for")
            self._top = parts[0]
            parts = (self._rename, *parts[1:])
        for depth in range(1, len(parts)):
            self._claim("/".join(parts[:depth]), folder=True, explicit=False)
        if parts:
            self._claim("/".join(parts), folder=folder, explicit=True)
        return parts

    def _claim(self, path: str, *, folder: bool, explicit: bool) -> None:
        """Let each name be used once, as hosts and people see names: without case, joiners and the way of accents."""
        key = unicodedata.normalize("NFC", path.translate(JOINERS).casefold())
        known = self._seen.get(key)
        if known is None and len(self._seen) >= self._max_files:
            raise TransferError(
                f"the archive holds more than {self._max_files} files and folders, the limit of a transfer: "
                "nothing was kept; pack them inside the sandbox and get the one archive"
            )
        if known is not None:
            if known.path != path or not (known.folder and folder) or (known.explicit and explicit):
                raise TransferError(f"{shown(path)} clashes with {shown(known.path)} in the same archive: rename one")
            explicit = explicit or known.explicit
        self._seen[key] = _Claim(path, folder, explicit)
