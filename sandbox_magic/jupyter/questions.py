"""Asking the user for a line of a cell's stdin: through the front end, or the terminal."""

from __future__ import annotations

import getpass
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from IPython.core.error import StdinNotImplementedError

from sandbox_magic.protocol import Output

NOBODY = "[the cell waited for input, and nobody can be asked here: its input has ended]"
END = "^D"  # what ends the input where Ctrl+D cannot be typed

_SECRET = re.compile(rb"pass(word|phrase|code|wd)?\b|\bPIN\b|secret", re.IGNORECASE)
_LINE_MAX = 500


class Questions:
    """Asks whenever a cell waits, and knows the prompt by what the cell has printed last."""

    def __init__(self) -> None:
        self._line = b""

    def heard(self, output: Output) -> None:
        """Take what the cell prints; the last line without an end is its prompt."""
        self._line = (self._line + output.data).rpartition(b"\n")[2][-_LINE_MAX:]

    def ask(self) -> str | None:
        """Return a line from the user; `None` for the end of the input; raise `KeyboardInterrupt` for neither."""
        read = getpass.getpass if _SECRET.search(self._line) else input
        self._line = b""
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
