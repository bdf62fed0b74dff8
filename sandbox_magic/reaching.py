"""Reaching a path of the host that may lead through a folder which a sandbox can change.

A sandbox that may write to a mounted folder can put a link there, in place of a file or folder that the user is about
to name, so that we would read a secret of the host, or write where nobody wanted it. So from such a folder on no link
is followed, and each step is opened relative to the one before: what is swapped meanwhile changes nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

from sandbox_magic.errors import TransferError
from sandbox_magic.members import shown

_LINKS_MOST = 40  # as the kernel
_STEP = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW


@contextlib.contextmanager
def reached(path: Path, shared: Iterable[Path]) -> Iterator[tuple[int, str]]:
    """Give an open folder and the name in it that a path stands for, links of the user's own followed.

    Args:
        path: It need not be there, but what it lies in.
        shared: The folders that a sandbox may change.

    Raises:
        TransferError: There is a link on the way that a sandbox may have made.
        OSError: What it lies in cannot be entered.
    """
    known = {_identity(folder.stat()) for folder in shared}
    left = _parts(Path.cwd() / path)
    folder, wary, links = os.open("/", _STEP), False, 0
    try:
        while left:
            part = left.pop()
            if _is_link(part, folder):
                links += 1
                if wary:
                    what = f"{shown(path)} leads through the link {shown(part)}"
                    raise TransferError(f"{what}, which a sandbox may have made: remove the link")
                if links > _LINKS_MOST:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = os.readlink(part, dir_fd=folder)
                left += _parts(PurePath(target))
                step = os.open("/", _STEP) if target.startswith("/") else os.dup(folder)
            elif left:
                step = os.open(part, _STEP, dir_fd=folder)
                wary = wary or _identity(os.fstat(step)) in known
            else:
                break
            os.close(folder)
            folder = step
        else:
            part = "."
        yield folder, part
    finally:
        os.close(folder)


def _parts(path: PurePath) -> list[str]:
    """Return the steps of a path, the first one last."""
    return [part for part in reversed(path.parts) if part != path.root]


def _is_link(name: str, folder: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
