"""A cell with ``--bg``: it returns at once; below it the end of the job's output is shown until the job has ended."""

from __future__ import annotations

import contextvars
import html
import os
import sys
import threading
import time
from collections import deque
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

from sandbox_magic.ansi import sanitize
from sandbox_magic.jupyter.options import CellOptions
from sandbox_magic.jupyter.status import one_line
from sandbox_magic.jupyter.variables import nothing_ran
from sandbox_magic.protocol import Output

if TYPE_CHECKING:
    from sandbox_magic.feed import Source
    from sandbox_magic.jobs import Job
    from sandbox_magic.sandbox import Sandbox

LINES = 10  # of the output that are shown
WIDTH = 200  # characters of one of them
PERIOD = 0.3  # seconds between two updates


class Tail:
    """The last lines of a job, in a display that is updated in its place; thread-safe.

    Args:
        shell: The IPython shell; without a kernel behind it nothing can be updated, and nothing is shown.
        quiet: Show nothing.
    """

    def __init__(self, shell: Any, *, quiet: bool) -> None:
        self._shows = not quiet and getattr(shell, "kernel", None) is not None
        self._context = contextvars.copy_context()  # newer kernels find the cell of an output by it
        self._lock = threading.Lock()
        self._lines: deque[str] = deque(maxlen=LINES)
        self._open = b""
        self._display_id = f"sandbox-{os.urandom(16).hex()}"
        self._head = ""
        self._notes: list[str] = []
        self._timer: threading.Timer | None = None
        self._drawn = False

    def begin(self, name: str) -> None:
        """Show that it runs, with what has come until now."""
        with self._lock:
            if not self._head:  # else it has ended already
                self._head = f"job {name}: running"
                self._draw()

    def add(self, output: Output) -> None:
        """Take a piece of output; it is shown a moment later."""
        with self._lock:
            *whole, rest = (self._open + output.data).split(b"\n")
            self._lines.extend(_shown(line) for line in whole[-LINES:])
            self._open = rest[-4 * WIDTH :]
            if self._timer is None:
                self._timer = threading.Timer(PERIOD, self._due)
                self._timer.daemon = True
                self._timer.start()

    def end(self, job: Job, seconds: float) -> None:
        """Show how it ended."""
        with self._lock:
            notes = [f"[{one_line(note)}]" for note in job.result.notes] if job.result is not None else []
            self._head = f"job {job.name}: {job.state} ({seconds:.1f} s)"
            self._notes = notes
            self._draw()

    def _due(self) -> None:
        with self._lock:
            self._timer = None
            if self._drawn and self._head.endswith(": running"):
                self._draw()

    def _draw(self) -> None:
        if self._shows:
            lines = [*self._lines, _shown(self._open)] if self._open else [*self._lines]
            text = "\n".join([f"[{self._head}]", *lines[-LINES:], *self._notes])
            self._context.run(self._publish, text)
        self._drawn = True

    def _publish(self, text: str) -> None:
        from IPython.display import display, update_display  # noqa: PLC0415 # only for background cells

        bundle = {"text/plain": text, "text/html": f"<pre>{html.escape(text)}</pre>"}
        show: Any = update_display if self._drawn else display  # untyped in old releases
        show(bundle, raw=True, display_id=self._display_id)


def _shown(line: bytes) -> str:
    """Return a line as its last state would look, without anything that a page or a terminal acts on."""
    text = line.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace").expandtabs()
    text = sanitize(text)
    return text if len(text) <= WIDTH else text[: WIDTH - 3] + "..."


def start(  # noqa: PLR0913 # what a cell has
    sandbox: Sandbox,
    code: str,
    options: CellOptions,
    variables: MutableMapping[str, Any],
    shell: Any,
    *,
    stdin: str | bytes | Source | None,
    env: dict[str, str],
    timeout: float | None,
    quiet: bool,
) -> Job:
    """Start the cell as a job, bind its variables now and when it ends, and show its tail."""
    tail, begun = Tail(shell, quiet=quiet), time.monotonic()

    def on_end(job: Job) -> None:
        if job.result is not None:
            ended = {options.out: job.result.stdout, options.err: job.result.stderr, options.result: job.result}
            variables.update({name: value for name, value in ended.items() if name})
        tail.end(job, time.monotonic() - begun)

    nothing_ran(variables)  # yet
    variables.update({name: None for name in (options.out, options.err, options.result) if name})
    job = sandbox.start_job(
        code,
        name=options.proc or "",
        timeout=timeout,
        stdin=stdin,
        on_output=tail.add,
        on_end=on_end,
        env=env,
        cwd=options.cwd,
    )
    if options.proc:
        variables[options.proc] = job
    if not quiet and getattr(shell, "kernel", None) is None:
        sys.stdout.write(f"[job {job.name}: running]\n")
    tail.begin(job.name)
    return job
