"""Where files from a sandbox land on the host: below one folder, through no link, under their names only when whole.

The folder may be shared with the sandbox, which then can move and replace things in it while we write. So nothing is
ever opened by a path: each step is opened relative to the one before, and what we made is known by its inode.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox_magic.errors import TransferError
from sandbox_magic.members import shown
from sandbox_magic.reaching import reached

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from io import BufferedWriter
    from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


@contextlib.contextmanager
def reporting(what: str) -> Iterator[None]:
    """Turn the host's own errors into `TransferError`."""
    try:
        yield
    except OSError as error:
        raise TransferError(f"cannot {what}: {error.strerror}") from error


@dataclass(slots=True)
class _Written:
    """A file or folder that this transfer made, to be found again whatever happens around it."""

    parts: tuple[str, ...]
    name: str  # what it is called now, in the folder parts[:-1]
    identity: tuple[int, int, int]


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_dev, status.st_ino, stat.S_IFMT(status.st_mode)  # a number is soon used again, by a link as well


class Landing:
    """Writes below one folder and never follows a link; no file has its own name before `commit`."""

    def __init__(self, target: Path, shared: Iterable[Path] = ()) -> None:
        if target.is_symlink():
            raise TransferError(f"{shown(target)} is a symbolic link: give {shown(target.resolve())} as the target")
        with reporting(f"write to the folder {shown(target)}"), reached(target, shared) as (parent, name):
            self._root = os.open(name, _FOLDER, dir_fd=parent)
        self._temporary = f".sandbox-magic-{secrets.token_hex(8)}-"
        self._folders: list[_Written] = []
        self._files: list[_Written] = []
        self._file: BufferedWriter | None = None

    @contextlib.contextmanager
    def _inside(self, parts: tuple[str, ...], *, create: bool = False) -> Iterator[int]:
        """Open a folder below the target step by step, so that no step can be a link."""
        folder = os.dup(self._root)
        try:
            for depth, part in enumerate(parts):
                with reporting(f"use {shown('/'.join(parts[: depth + 1]))} in the target as a folder"):
                    made = create and self._make(part, folder)
                    below = os.open(part, _FOLDER, dir_fd=folder)
                os.close(folder)
                folder = below
                if made:
                    self._folders.append(_Written(parts[: depth + 1], part, _identity(os.fstat(folder))))
            yield folder
        finally:
            os.close(folder)

    @staticmethod
    def _make(name: str, folder: int) -> bool:
        try:
            os.mkdir(name, 0o755, dir_fd=folder)
        except FileExistsError:
            return False
        return True

    def make_folder(self, parts: tuple[str, ...]) -> None:
        """Make a folder, or use a real one that exists."""
        with self._inside(parts, create=True):
            pass

    def open_file(self, parts: tuple[str, ...]) -> None:
        """Start a file; `write` and `close_file` follow."""
        with self._inside(parts[:-1], create=True) as folder:
            self._check_replaceable(folder, parts)
            name = f"{self._temporary}{len(self._files)}"
            descriptor = os.open(name, _NEW_FILE, 0o600, dir_fd=folder)
            self._file = os.fdopen(descriptor, "wb")
            self._files.append(_Written(parts, name, _identity(os.fstat(descriptor))))

    @staticmethod
    def _check_replaceable(folder: int, parts: tuple[str, ...]) -> None:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISREG(os.stat(parts[-1], dir_fd=folder, follow_symlinks=False).st_mode):
                raise TransferError(
                    f"{shown('/'.join(parts))} in the target is a folder, a link or a device: move it away first"
                )

    def write(self, data: memoryview) -> None:
        """Append to the open file."""
        assert self._file is not None
        self._file.write(data)

    def close_file(self, *, executable: bool) -> None:
        """End the open file."""
        assert self._file is not None
        os.fchmod(self._file.fileno(), 0o755 if executable else 0o644)
        self._file.close()
        self._file = None

    def commit(self) -> list[tuple[str, ...]]:
        """Give all files their names, each atomically; return these."""
        for file in self._files:
            with self._inside(file.parts[:-1]) as folder:
                self._check_replaceable(folder, file.parts)
                if _identity(os.stat(file.name, dir_fd=folder, follow_symlinks=False)) != file.identity:
                    raise TransferError(f"{shown('/'.join(file.parts))} was changed by others during the transfer")
        for file in self._files:
            with self._inside(file.parts[:-1]) as folder:
                os.replace(file.name, file.parts[-1], src_dir_fd=folder, dst_dir_fd=folder)
                file.name = file.parts[-1]
        return [file.parts for file in self._files]

    def undo(self) -> None:
        """Remove what this transfer made and what still is what it made."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk says so once more
                self._file.close()
        for written, remove in [(file, os.unlink) for file in self._files] + [
            (folder, os.rmdir) for folder in reversed(self._folders)
        ]:
            with contextlib.suppress(OSError, TransferError), self._inside(written.parts[:-1]) as folder:
                if _identity(os.stat(written.name, dir_fd=folder, follow_symlinks=False)) == written.identity:
                    remove(written.name, dir_fd=folder)

    def close(self) -> None:
        """Let go of the target."""
        os.close(self._root)
