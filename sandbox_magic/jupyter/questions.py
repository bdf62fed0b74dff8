"""Asking the user for a line of a cell's stdin: through the front end, or the terminal."""

from __future__ import annotations

import getpass
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from IPython.core.error import StdinNotImplementedError

from sandbox_magic.protocol import Output

NOBODY = "[the cell waited for input, and nobody can be asked here: its input has ended]"
END = "^D"  # what ends the input where Ctrl+D cannot be typed

_SECRET = re.compile(rb"pass(word|phrase|code|wd)?\b|\bPIN\b|secret", re.IGNORECASE)
_LINE_MAX = 500


class Questions:
    """Asks whenever a cell waits.

    Where there is no terminal to say what is a secret, the prompt does: what the cell has printed last.
    """

    def __init__(self, *, terminal: bool) -> None:
        self._terminal = terminal
        self._line = b""

    def heard(self, output: Output) -> None:
        """Take what the cell prints; the last line without an end is its prompt."""
        self._line = (self._line + output.data).rpartition(b"\n")[2][-_LINE_MAX:]

    def ask(self) -> str | None:
        """Return a line from the user; `None` for the end of the input; raise `KeyboardInterrupt` for neither."""
        secret = not self._terminal and _SECRET.search(self._line)
        self._line = b""
        return self._read(getpass.getpass if secret else input)

    def ask_secret(self) -> str | None:
        """Return the same without showing what is typed."""
        return self._read(getpass.getpass)

    def _read(self, read: Callable[[str], str]) -> str | None:
        sys.stdout.flush()
        try:
            with _interruptible():
                text = read("")
        except StdinNotImplementedError:
            sys.stdout.write(NOBODY + "\n")
            return None
        except EOFError:
            return None
        except KeyboardInterrupt:
            signal.raise_signal(signal.SIGINT)  # now it is a request again, to stop the cell
            raise
        return None if text in {END, "\x04"} else text


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGINT end a question: while a cell runs it is only a request, see interrupts.py."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
