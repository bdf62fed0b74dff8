"""One updating line for what takes long: pulling, starting, going online. Nothing at all if it was quick."""

from __future__ import annotations

import contextvars
import html
import os
import re
import shutil
import sys
import threading
import time
from typing import Any

from sandbox_magic.ansi import sanitize

DELAY = 0.5  # seconds of silence: most cells never show it
PERIOD = 0.25  # seconds between two updates
WIDTH = 200  # characters of one line

_PERCENT = re.compile(r":?\s*\d+(\.\d+)?\s*%.*$")


def one_line(text: str, width: int = WIDTH) -> str:
    """Return the text as one line that holds nothing a terminal or a page would act on, cut if it is long."""
    text = sanitize(" ".join(text.split()))
    return text if len(text) <= width else text[: width - 3] + "..."


class StatusDisplay:
    """What one cell shows while its sandbox is being prepared; thread-safe.

    It appears after `DELAY`, also when no further text comes, and ends as one line that says what took how long.

    Args:
        shell: The IPython shell; with a kernel behind it a display is updated in place, else a line on stderr.
        quiet: Show nothing.
    """

    def __init__(self, shell: Any, *, quiet: bool = False) -> None:
        self._in_kernel = getattr(shell, "kernel", None) is not None
        self._quiet = quiet
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._finished = self._shown = False
        self._forget()

    def update(self, text: str) -> None:
        """Show what is being done now; an empty text says that it is done."""
        with self._lock:
            if self._quiet or self._finished:
                return
            if not text:
                self._settle("done")
                return
            self._text = one_line(text)
            phase = _PERCENT.sub("", self._text)
            if phase not in self._phases:
                self._phases.append(phase)
            if self._shown:
                self._draw(self._text)
            elif self._timer is None:
                self._began = time.monotonic()
                self._show_later()

    def finish(self) -> None:
        """End the display for good; what was not reported as done did not succeed."""
        with self._lock:
            self._settle("stopped")
            self._finished = True

    def _forget(self) -> None:
        self._text = ""
        self._phases: list[str] = []
        self._began = self._drawn = 0.0
        self._shown = False
        self._display_id = f"sandbox-{os.urandom(16).hex()}"

    def _show_later(self) -> None:
        context = contextvars.copy_context()  # newer kernels find the cell of an output by it
        self._timer = threading.Timer(DELAY, context.run, args=(self._show, self._display_id))
        self._timer.daemon = True
        self._timer.start()

    def _show(self, display_id: str) -> None:
        with self._lock:
            if display_id == self._display_id and not self._shown:
                self._draw(self._text)

    def _settle(self, outcome: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._shown:
            seconds = time.monotonic() - self._began
            self._draw(f"{outcome}: {', '.join(self._phases)} ({seconds:.1f} s)", last=True)
        self._forget()

    def _draw(self, text: str, *, last: bool = False) -> None:
        now = time.monotonic()
        if self._shown and not last and now - self._drawn < PERIOD:
            return
        self._drawn = now
        if self._in_kernel:
            self._publish(text)
        else:
            _write_line(text, last=last)
        self._shown = True

    def _publish(self, text: str) -> None:
        from IPython.display import display, update_display  # noqa: PLC0415 # only when something takes long

        bundle = {"text/plain": text, "text/html": f'<div style="opacity: 0.7">{html.escape(text)}</div>'}
        show: Any = update_display if self._shown else display  # untyped in old releases
        show(bundle, raw=True, display_id=self._display_id)


def _write_line(text: str, *, last: bool) -> None:
    """Write over the line on a terminal; elsewhere only the last state is worth a line."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1  # a wrapped line could not be written over
        sys.stderr.write(f"\r\x1b[K{text[:width]}" + ("\n" if last else ""))
        sys.stderr.flush()
    elif last:
        sys.stderr.write(text + "\n")
