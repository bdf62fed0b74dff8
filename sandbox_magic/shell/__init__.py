"""The shell's side of the protocol, as files, so that they can be read and tested as what they are.

`supervisor.sh` starts the session's shell and says when it has ended. `bash.sh` and `posix.sh` hold what runs around a
cell in that shell. `control.sh` finds and signals processes from a second shell.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def script(name: str) -> str:
    """Return one of the files, whole."""
    return files(__name__).joinpath(name).read_text(encoding="ascii")


@cache
def sections(name: str) -> dict[str, str]:
    """Return the sections of a file as one line each: comments dropped, lines joined by spaces.

    A section begins at a line ``#: name``. One line each, because a shell that has failed inside a line goes on with
    the next line, and that is how the protocol comes back after an error.
    """
    found: dict[str, list[str]] = {}
    for line in script(name).splitlines():
        if line.startswith("#: "):
            found[line[3:]] = current = []
        elif line.strip() and not line.lstrip().startswith("#"):
            current.append(line.strip())
    return {title: " ".join(lines) for title, lines in found.items()}
