"""One cell's way through: run it, show what comes, set the variables on every path, then raise."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Collection, MutableMapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from IPython import get_ipython

from sandbox_magic.errors import CommandTimeout
from sandbox_magic.jupyter import background
from sandbox_magic.jupyter.hints import with_hints
from sandbox_magic.jupyter.options import CellOptions
from sandbox_magic.jupyter.questions import Questions
from sandbox_magic.jupyter.settings import Settings
from sandbox_magic.jupyter.status import StatusDisplay, one_line
from sandbox_magic.jupyter.variables import environment, nothing_ran, stdin
from sandbox_magic.jupyter.view import CellView
from sandbox_magic.manager import SandboxManager
from sandbox_magic.protocol import STDERR, STDOUT, STREAMS, LateOutput, Output
from sandbox_magic.result import Result

if TYPE_CHECKING:
    from sandbox_magic.feed import Source
    from sandbox_magic.jobs import Job
    from sandbox_magic.running import Tick
    from sandbox_magic.sandbox import Sandbox

LATE = "[printed by a background job]"
LATE_OF = "[printed by a background job of: {}]"
NOW = "[this cell]"
_LIVE_SECONDS = 0.5  # between two looks at what jobs print while a cell runs
_LIVE_BYTES = 64 << 10  # of it that a cell shows before its end


class ShownResult(Result):
    """A `Result` whose output its cell has shown already: there, and only there, it displays nothing more."""

    __slots__ = ("_shown_in",)
    _shown_in: int

    @classmethod
    def of(cls, result: Result, execution_count: int) -> ShownResult:
        """Return the same result, as shown in this cell."""
        shown = cls(**{field.name: getattr(result, field.name) for field in fields(result)})
        object.__setattr__(shown, "_shown_in", execution_count)  # the base class is frozen
        return shown

    def _ipython_display_(self) -> None:
        shell: Any = get_ipython()  # type: ignore[no-untyped-call, unused-ignore] # untyped in old releases
        if shell is None or shell.execution_count != getattr(self, "_shown_in", None):
            raise NotImplementedError  # tells IPython to display it as usual
        if getattr(shell, "kernel", None) is None:  # a terminal has written `Out[1]: ` by now
            sys.stdout.write(f"exit_code={self.exit_code}, {self.duration:.3f} s\n")


class _Screen:
    """What a cell shows: the streams in `shown` through a `CellView`, and lines of ours."""

    def __init__(self, shown: Collection[str], *, separate_stderr: bool) -> None:
        self.view = CellView(show=shown, separate_stderr=separate_stderr)
        self._shown = shown
        self._in_line = False

    def show(self, output: Output) -> None:
        """Show a piece of output, unless its stream is not shown."""
        if output.stream in self._shown and output.data:
            self._in_line = not output.data.endswith(b"\n")
            self.view.show(output)

    def tick(self) -> float | None:
        """Write what is due; return in how many seconds there is more."""
        self.view.tick()
        return self.view.deadline()

    @property
    def at_line_start(self) -> bool:
        """Whether a line of ours may be written now, without `say`."""
        return self.view.settled and not self._in_line

    def end_line(self) -> None:
        """Write what was held back, and end its line: nothing more comes."""
        self.view.finish()
        if self._in_line:
            sys.stdout.write("\n")
            self._in_line = False

    def say(self, text: str) -> None:
        """Write one line of ours, on a line of its own, after what was held back."""
        self.end_line()
        sys.stdout.write(text + "\n")


class _Late:
    """Shows what background jobs print, under headings; it belongs to no cell, so to no variable."""

    def __init__(self, sandbox: Sandbox, screen: _Screen, *, separate_stderr: bool, quiet: bool) -> None:
        self._sandbox = sandbox
        self._screen = screen
        self._apart = separate_stderr
        self._quiet = quiet
        self._waiting: list[LateOutput] = []
        self._due = time.monotonic() + _LIVE_SECONDS
        self._left = _LIVE_BYTES

    def show(self) -> None:
        """Show what has come, by job. What follows is the cell's."""
        self._take()
        late, self._waiting = self._waiting, []
        for job in dict.fromkeys(output.job for output in late):
            screen = _Screen(STREAMS, separate_stderr=self._apart)
            sys.stdout.write((LATE_OF.format(one_line(job)) if job else LATE) + "\n")
            for output in late:
                if output.job == job:
                    screen.show(output)
            screen.end_line()
        self._left -= sum(len(output.data) for output in late)

    def before(self) -> None:
        """Show what has come since the last cell."""
        self._take()
        if self._waiting:
            self.show()
            sys.stdout.write(NOW + "\n")

    def tick(self) -> float | None:
        """Do the same while the cell runs, where a line of ours may stand; return when something is due again."""
        wait, left = self._screen.tick(), self._due - time.monotonic()
        self._take()
        if not self._waiting or self._left <= 0 or not self._screen.at_line_start:
            return wait
        if left > 0:
            return left if wait is None else min(wait, left)
        self.before()
        self._due = time.monotonic() + _LIVE_SECONDS
        return wait

    def after(self) -> None:
        """Show the rest, when all of the cell's own output is shown."""
        self._take()
        if self._waiting:
            self._screen.end_line()
            self.show()

    def _take(self) -> None:
        """Take what is there, unless there is some that was not shown yet: so it is bounded."""
        if not self._waiting and not self._quiet:
            self._waiting = [output for output in self._sandbox.late_output() if output.data]


class CellRun:
    """Run one cell with its options.

    Args:
        options: What its first line asked for.
        shell: The IPython shell.
        settings: What counts where the options are silent.
        returned: The `Result` is given back to the cell, which must not display the same output a second time.
    """

    def __init__(self, options: CellOptions, shell: Any, settings: Settings, *, returned: bool) -> None:
        self._options = options
        self._shell = shell
        self._settings = settings
        self._returned = returned
        self._variables: MutableMapping[str, Any] = shell.user_ns
        self._quiet = options.quiet or settings.quiet
        self._apart = settings.separate_stderr or options.err is not None
        self._begun = 0.0
        self._questions = Questions(terminal=options.tty) if options.interactive else None
        shown = set() if self._quiet else set(STREAMS)
        if not options.tee:
            shown -= {stream for stream, name in ((STDOUT, options.out), (STDERR, options.err)) if name}
        self._screen = _Screen(shown, separate_stderr=self._apart)

    def run(self, code: str, manager: SandboxManager) -> Result | Job:
        """Run the code, set the variables, then raise if it failed; with ``--bg`` start it as a job.

        Raises:
            InvalidOptions: An option cannot be carried out; nothing was run.
            CommandFailed, CommandTimeout, KeyboardInterrupt: How the command ended; the variables are set.
            SandboxError: The command could not be run; `_exit_code` is `None`.
        """
        given, env = stdin(self._options, self._variables), environment(self._options, self._variables)
        status = StatusDisplay(self._shell, quiet=self._quiet)
        wish, defaults = self._options.wish(), self._settings.spec_defaults()
        sandbox = manager.get(self._options.name, wish, defaults, on_progress=status.update)
        late = _Late(sandbox, self._screen, separate_stderr=self._apart, quiet=self._quiet)
        late.before()
        if self._options.background:
            try:
                return self._start(sandbox, code, given, env)
            finally:
                status.finish()
        self._begun = time.time()
        self._variables.update({name: "" for name in (self._options.out, self._options.err) if name})
        before, result = sandbox.last, None
        try:
            try:
                self._call(sandbox, code, given, env, late.tick)
            finally:  # the variables first: whatever comes next may be interrupted
                result = self._bind(sandbox, before)
                status.finish()
                self._screen.view.finish()
                late.after()
        except CommandTimeout as error:
            error.result = result or error.result
            raise
        except KeyboardInterrupt as error:
            _shorten(error, result)
            raise
        assert result is not None  # every run leaves one
        return self._judge(result)

    def _call(
        self, sandbox: Sandbox, code: str, given: str | bytes | Source | None, env: dict[str, str], tick: Tick
    ) -> None:
        sandbox.run(
            code,
            timeout=self._timeout(),
            stdin=given,
            on_output=self._show,
            env=env or None,
            cwd=self._options.cwd,
            network=self._options.network,
            tick=tick,
            tty=self._options.tty,
            ask=self._questions.ask if self._questions else None,
            ask_secret=self._questions.ask_secret if self._questions else None,
        )

    def _show(self, output: Output) -> None:
        self._screen.show(output)
        if self._questions is not None:
            self._questions.heard(output)

    def _timeout(self) -> float | None:
        timeout = self._settings.timeout if self._options.timeout is None else self._options.timeout
        return None if timeout == math.inf else timeout

    def _start(self, sandbox: Sandbox, code: str, given: str | bytes | Source | None, env: dict[str, str]) -> Job:
        return background.start(
            sandbox,
            code,
            self._options,
            self._variables,
            self._shell,
            stdin=given,
            env=env,
            timeout=self._timeout(),
            quiet=self._quiet,
        )

    def _bind(self, sandbox: Sandbox, before: Result | None) -> Result | None:
        """Set the variables of this cell; return its result, or `None` if the command was never run."""
        result = sandbox.last
        if result is None or result is before:
            nothing_ran(self._variables)
            return None
        self._variables["_exit_code"] = result.exit_code
        result = with_hints(
            result,
            online=self._options.network is True or sandbox.online,
            refused=[access for access in sandbox.network_log if not access.allowed and access.time >= self._begun],
        )
        if self._returned:
            result = ShownResult.of(result, self._shell.execution_count)
        self._variables["_sandbox"] = result
        if self._options.out:
            self._variables[self._options.out] = result.stdout
        if self._options.err:
            self._variables[self._options.err] = result.stderr
        if self._options.result:
            self._variables[self._options.result] = result
        return result

    def _judge(self, result: Result) -> Result:
        """Raise if the command failed and that shall raise; else show the remarks, which an error would carry."""
        wanted = self._settings.raise_error if self._options.raise_error is None else self._options.raise_error
        if wanted:
            result.check()
        for note in result.notes:
            self._screen.say(f"[{one_line(note)}]")
        return result


def _shorten(error: KeyboardInterrupt, result: Result | None) -> None:
    """Let the notebook show how the command was stopped instead of our stack."""
    what = f"the command was stopped ({result.stopped_by or 'SIGINT'})" if result else "nothing was run"
    notes = [one_line(note) for note in result.notes] if result else []
    text = "\n".join([f"KeyboardInterrupt: {what}", *notes])  # one text: some modes of IPython join without newlines
    error.args = error.args or (what,)
    vars(error)["_render_traceback_"] = lambda: [text]
