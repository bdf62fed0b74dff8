"""Files and folders in and out of a sandbox, through a `tar` inside and our own reader and writer of archives here.

The engine's archive calls are not used: they run as root on the host while untrusted code changes the tree under them
(CVE-2026-41567, -41568, -42306). What comes out is hostile until `archive.Unpacker` has written it.
"""

from __future__ import annotations

import secrets
import shlex
import time
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from sandbox_magic.ansi import sanitize
from sandbox_magic.archive import Unpacker, pack
from sandbox_magic.control import ControlShell
from sandbox_magic.engines.base import Machine
from sandbox_magic.errors import SessionError, TransferError
from sandbox_magic.protocol import STDOUT, STREAMS
from sandbox_magic.transport import Chunk

_IDLE_SECONDS = 60.0  # without a byte in either direction
_ASK_SECONDS = 10.0  # without one, then the engine is asked whether there can be any
_QUEUE = 4 << 20
_ERRORS_MAX = 4096

# Speaks only after it was spoken to. The fence on stderr carries tar's exit code, for the streams may end late.
_FRAME = 'IFS= read -r token; {command}; printf "\\036%s %s\\n" "$token" "$?" >&2'
# Each chunk comes after its length, and dd reads exactly that: so tar gets an end of file (busybox's waits for one)
# although the stream stays open.
_PUT = (
    'command -v tar dd >/dev/null && mkdir -p "$1" && while read -r size && [ "$size" -gt 0 ]; do '
    'dd bs="$size" count=1 iflag=fullblock 2>/dev/null || break; done | tar -xf - -C "$1"'
)
_GET = """command -v tar >/dev/null || { echo "the image has no tar" >&2; false; } && {
[ -d "$1" ] || { echo "there is no folder $1 in the sandbox" >&2; false; } } && cd -- "$1" && {
[ -e "./$2" ] || [ -L "./$2" ] || { echo "there is no $2 in $1 of the sandbox" >&2; false; } } && tar -cf - "./$2\""""


def is_folder(machine: Machine, control: ControlShell, path: PurePosixPath) -> bool:
    """Whether there is a folder of this name in the sandbox.

    Raises:
        EngineError, SessionError: Nobody answers.
    """
    try:
        return bool(control.call(f"[ -d {shlex.quote(str(path))} ] && echo yes", timeout=10))
    except SessionError as error:
        raise machine.trouble() or error from None


def put(
    machine: Machine, control: ControlShell, source: Path, target: str, *, cwd: str, shared: Iterable[Path] = ()
) -> None:
    """Copy a host file or folder into the sandbox.

    Args:
        machine: The sandbox.
        control: The shell that looks whether the target is a folder.
        source: The file or folder.
        target: Where to: a folder if it is one or ends with a slash, else the new name.
        cwd: What a relative target is relative to.
        shared: Folders of the host that the sandbox may change: no link of these is followed.

    Raises:
        TransferError: The source cannot be read or holds what cannot be copied; the target cannot be written.
    """
    path = PurePosixPath(cwd, target)
    into = is_folder(machine, control, path) or target.endswith("/") or path.name in ("", ".")
    folder, name = (path, source.resolve().name) if into else (path.parent, path.name)
    stream = pack(source, name, shared)
    _Transfer(machine, _PUT, [str(folder)], f"put {sanitize(str(source))}").send(stream)


def get(machine: Machine, source: str, target: Path, *, cwd: str, shared: Iterable[Path] = ()) -> list[Path]:
    """Copy a file or folder out of the sandbox; never a link, device or anything outside `target`.

    Args:
        machine: The sandbox.
        source: The file or folder inside.
        target: An existing folder, or the new name.
        cwd: What a relative source is relative to.
        shared: As of `put`.

    Returns:
        The files that were written.

    Raises:
        TransferError: It is not there, or holds what is refused; nothing of it is left here.
    """
    path = PurePosixPath(cwd, source)
    if not path.name or path.name == "..":
        raise TransferError(f"get {sanitize(source)}: name a file or a folder")
    folder, name = (target, path.name) if target.is_dir() else (target.parent, target.name)
    unpacker = Unpacker(folder, rename=name, shared=shared)
    try:
        _Transfer(machine, _GET, [str(path.parent), path.name], f"get {sanitize(source)}").receive(unpacker)
        return unpacker.finish()
    except BaseException:
        unpacker.abort()
        raise


class _Transfer:
    """One tar inside, spoken to over its own stream."""

    def __init__(self, machine: Machine, command: str, arguments: list[str], what: str) -> None:
        self._what = what
        self._machine = machine
        self._token = secrets.token_hex(16)
        self._fence = f"\x1e{self._token} ".encode()
        self._errors = bytearray()
        self._open = set(STREAMS)
        self._transport = machine.open(["sh", "-c", _FRAME.format(command=command), "transfer", *arguments])
        self._transport.send(self._token.encode() + b"\n")

    def send(self, chunks: Iterable[bytes]) -> None:
        """Send an archive and wait for tar's end."""
        try:
            for chunk in chunks:
                self._transport.send(b"%d\n" % len(chunk))
                self._transport.send(chunk)
                while self._transport.pending() > _QUEUE and self._pump(None):
                    pass
                if self._over():
                    break  # tar has given up; it says why
            self._transport.send(b"0\n")
            while self._pump(None):
                pass
            self._check()
        finally:
            self._transport.close()

    def receive(self, unpacker: Unpacker) -> None:
        """Feed an archive to `unpacker` until tar's end."""
        try:
            while self._pump(unpacker):
                pass
            self._check()
        finally:
            self._transport.close()

    def _over(self) -> bool:
        return self._fence in self._errors and self._errors.endswith(b"\n")

    def _pump(self, unpacker: Unpacker | None) -> bool:
        """Move what can be moved; return whether there is more to come: each stream until its end."""
        for stream, data in self._arrived():
            if not data:
                self._open.discard(stream)
            elif stream == STDOUT:
                if unpacker is not None:
                    unpacker.feed(data)
            else:
                self._errors += data
                if len(self._errors) > 2 * _ERRORS_MAX:  # keep the beginning, and the end, where the fence is
                    del self._errors[_ERRORS_MAX:-_ERRORS_MAX]
        if not self._open and not self._over():
            raise TransferError(f"{self._what}: the sandbox ended the transfer")
        return bool(self._open)

    def _arrived(self) -> list[Chunk]:
        """Wait until something moves, and return what has come."""
        begun, pending = time.monotonic(), self._transport.pending()
        while (passed := time.monotonic() - begun) < _IDLE_SECONDS:
            if passed >= _ASK_SECONDS and (trouble := self._machine.trouble()) is not None:
                raise trouble
            chunks = self._transport.receive(_ASK_SECONDS)
            if chunks or self._transport.pending() < pending:
                return chunks
        raise TransferError(f"{self._what}: nothing has moved for {_IDLE_SECONDS:g} s; given up")

    def _check(self) -> None:
        said, _, code = bytes(self._errors).partition(self._fence)
        if code.strip() != b"0":
            reason = said.decode(errors="replace").strip() or "no tar in the image, or it has failed without a word"
            raise TransferError(f"{self._what}: {sanitize(' '.join(reason[:300].split()))}")
