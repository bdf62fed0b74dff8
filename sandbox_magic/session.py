"""`Session`: one persistent shell. It runs one cell at a time, stops it when told, and survives the shell's end."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from sandbox_magic.ansi import sanitize
from sandbox_magic.asking import Input, Reading
from sandbox_magic.capture import Capture
from sandbox_magic.control import ControlShell
from sandbox_magic.diverted import diverted
from sandbox_magic.engines.base import Machine
from sandbox_magic.errors import CommandTimeout, EngineError, InvalidOptions, SessionBusy, SessionClosed, ShellExited
from sandbox_magic.feed import Source, stage
from sandbox_magic.inheritance import CUT, ENDED, SANDBOX_ENDED
from sandbox_magic.interrupts import deferred_interrupts
from sandbox_magic.ladder import Ladder
from sandbox_magic.late import meanwhile
from sandbox_magic.link import ShellLink
from sandbox_magic.protocol import Died, Event, Exited, Finished, Output, Started
from sandbox_magic.pulse import Pulse
from sandbox_magic.result import Result
from sandbox_magic.running import RESCUE_SECONDS, Run, Tick, check, preparation

_BEGIN_SECONDS = 1.0  # how long an interrupt waits for a cell that has not begun
_SIGKILL = 137
_UNKNOWN = 255  # what $? is after a shell whose exit code is not known: no success
_FATAL_SECONDS = 2.0  # in which a shell ends that was ordered to when its cell had just ended
_SETTLE_SECONDS = 0.1  # in which the end of a sandbox follows the SIGKILL of its processes
_PREPARE_SECONDS = 10.0
_CLOSE_SECONDS = 2.0  # how long a close waits for a running cell to let go; its machine ends it in any case
_ATTEMPTS = 3


class Session:
    """One persistent shell in a machine. Thread-safe: one `run` at a time, `interrupt` and `close` from anywhere.

    Attributes:
        last: The result of the last run, also when that raised.
        link: The stream to its shell; for others to look at.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        env: Mapping[str, str] | None = None,
        shell: str | None = None,
        restore: bool = True,
        alone: bool = True,
    ) -> None:
        """Make a session; the shell starts with `open` or the first `run`.

        Args:
            machine: The sandbox.
            env: The shell's first environment.
            shell: Its name or path; bash where there is one, else sh.
            restore: Whether a new shell gets variables, functions, aliases and options back, not only exports.
            alone: All that runs in the sandbox may be ended to stop a cell; else only what its own shell has started.
        """
        self.last: Result | None = None
        self.link = ShellLink(machine, env=env or {}, shell=shell, restore=restore, narrow=not alone)
        self._busy = threading.Lock()
        self._requests = 0
        self._owner = os.getpid()
        self._closed = False
        self._alone = alone

    @property
    def control(self) -> ControlShell:
        """The shell beside the session's."""
        return self.link.control

    @property
    def shell(self) -> str:
        """The name of the session's shell; empty before it runs."""
        return self.link.protocol.shell

    def open(self) -> None:
        """Start the shell if there is none.

        Raises:
            StartTimeout, ShellExited: It did not answer in 30 s; it ended at once.
        """
        with self.link.unwatched():
            self.link.ensure()

    def run(  # noqa: PLR0913 # each is a wish of its own, and most are left out
        self,
        code: str,
        *,
        timeout: float | None = None,
        stdin: str | bytes | Source | Input | None = None,
        on_output: Callable[[Output], object] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        tick: Tick | None = None,
        capture: Capture | None = None,
        tty: bool = False,
    ) -> Result:
        """Run a cell to its end and return what it did.

        Args:
            code: Any shell text.
            timeout: Seconds; then the interrupt ladder.
            stdin: What the cell reads, or an `Input`; who is asked is asked in this thread.
            on_output: Called in this thread with each piece of output as it comes. What it raises stops the cell.
            env: Exported before the cell, and kept, as ``export`` does.
            cwd: Where the shell goes before the cell, and stays, as ``cd`` does.
            tick: Called while waiting; does what is due and returns in how many seconds it wants to be called again.
            capture: Where the output is kept, for those who look at it meanwhile.
            tty: On a terminal, its stdin too if there is `ask`, in a child of the shell: directory and exports stay.

        Raises:
            SessionBusy, SessionClosed: Another cell runs; it was closed, or belongs to the process this one came from.
            InvalidOptions: An argument cannot be, or there is no terminal to be had; nothing was run.
            CommandTimeout, KeyboardInterrupt: With the partial result; in the main thread, and `last` holds it.
        """
        if self._owner != os.getpid():
            raise SessionClosed("this session belongs to the process that this one was forked from")
        check(code, timeout, on_output)
        given = stdin if isinstance(stdin, Input) else Input(stdin)
        if not self._busy.acquire(blocking=False):
            raise SessionBusy("a command is still running in this session; wait for it, interrupt it, or use another")
        try:
            if self._closed:
                raise SessionClosed("this session is closed")
            with deferred_interrupts(self._signalled), self.link.unwatched():
                self.link.resume()
                self._requests = 0
                if env or cwd:
                    self._prepare(env or {}, cwd)
                run = self._new(code, capture=capture or Capture(), on_output=on_output, tick=tick)
                result = self._attend(run, given, timeout, tty=tty)
        finally:
            self._busy.release()
        if run.error is not None:
            raise run.error
        if run.timed_out and timeout is not None:
            raise CommandTimeout(result, timeout)
        return result

    def _attend(self, run: Run, given: Input, timeout: float | None, *, tty: bool) -> Result:
        """Run a cell with what it reads, and keep what it did, also if that ends in an error."""
        if tty:
            self.link.ensure()
        reading = Reading(run, given, self.link.machine, self.control, lambda: self._cell(run) if run.begun else ())
        try:
            with reading.begin(self.shell if tty else ""):
                self._execute(run, timeout)
            if run.shell_ended:  # the next cell finds it in $?
                self.link.protocol.last_exit_code = _UNKNOWN if run.exit_code is None else run.exit_code
            run.notes += [] if run.shell_ended else diverted(run.code, self.link, self._aside)
        finally:
            if run.sent_at:
                self.last = result = run.result(self.link.notes)
                self.link.notes = []
        return result

    def interrupt(self) -> None:
        """Stop the running cell; again: take the next, harder step at once. Nothing happens when none runs."""
        if self._busy.locked():
            self._requests += 1
            self.link.wake()

    def ask(self, code: str) -> str:
        """Run code of ours between cells, which must leave nothing behind, and return what it printed."""
        with self.link.unwatched():
            return self._aside(code).capture.output().decode(errors="replace")

    def bequeath(self, heir: Session) -> None:
        """Let another session's first shell begin as this one stands; while a cell runs, as it last rested."""
        if not self._busy.acquire(blocking=False):
            self.link.bequeath(heir.link)
            return
        try:
            with self.link.unwatched():
                self.link.ensure()
                self.link.save()
                self._aside(":")  # once this has begun, all is written
                self.link.bequeath(heir.link)
        finally:
            self._busy.release()

    def prepare(self, env: Mapping[str, str], cwd: str | None) -> None:
        """Export and change directory before the first run; `InvalidOptions` if that cannot be."""
        with self.link.unwatched():
            self._prepare(env, cwd)

    def forget(self) -> None:
        """Leave nothing behind inside; the next thing to do is `close`."""
        self.link.forget()

    def close(self) -> None:
        """Close the streams; the machine ends what runs in it. A running cell ends with `SessionClosed`."""
        self._closed = True
        self.link.wake()
        if self.link.io.acquire(timeout=_CLOSE_SECONDS):
            try:
                self.link.drop()
            finally:
                self.link.io.release()
        self.link.control.close()

    def _signalled(self) -> None:
        if self.link.opening:
            raise KeyboardInterrupt
        self.interrupt()

    def _new(self, code: str, **options: Any) -> Run:
        ladder = Ladder(self.link.control, self.link.recover, alone=self._alone)
        return Run(code, ladder, Pulse(self.link.machine, self.link.wake), **options)

    def _prepare(self, env: Mapping[str, str], cwd: str | None) -> None:
        """Export and change directory in a run of its own."""
        run = self._aside(preparation(env, cwd))
        if run.exit_code != 0:
            said = sanitize(" ".join(run.capture.output().decode(errors="replace").split())[-300:])
            raise InvalidOptions(f"the cell was not run, its env or cwd cannot be set: {said}")
        for output in meanwhile(run.capture):
            self.link.keep(output)

    def _aside(self, code: str) -> Run:
        """Run code of ours, which the next cell does not see."""
        self.link.ensure()
        run = self._new(code, ours=True)
        self._execute(run, _PREPARE_SECONDS)
        return run

    def _send(self, run: Run) -> None:
        run.attempts += 1
        if run.attempts > _ATTEMPTS:
            raise ShellExited("the shell of the sandbox ended again and again before it could run the cell")
        self.link.ensure()
        source = run.feed.path if run.feed else stage(self.control, self.link.protocol.supervisor_pid, run.stdin)
        moment = time.monotonic()
        run.fenced = self.link.send(run.sent or run.code, source, ours=run.ours)
        run.sent_at = moment
        if not run.fenced:
            run.begin()

    def _execute(self, run: Run, timeout: float | None) -> None:
        """Send the cell and pump until it is done."""
        answered = 0
        try:
            self._send(run)
            if timeout is not None:
                run.deadline = run.sent_at + timeout
            while not run.done:
                self._hear(run)
                if run.done:
                    self._settle(run)
                    return
                if self._closed:
                    raise SessionClosed("the session was closed while a command was running")
                if run.pulse.trouble is not None:
                    run.give_up(run.pulse.trouble)
                    break
                asked, answered = self._requests > answered, self._requests
                run.interrupted |= asked
                if run.deadline is not None and time.monotonic() >= run.deadline:
                    run.deadline, run.timed_out, asked = None, True, True
                asked |= run.error is not None and not run.ladder.climbing
                if asked or run.ladder.climbing:
                    self._climb(run, now=asked)
        finally:
            if run.sent_at and (not run.done or run.pulse.trouble):  # else it may print later
                self.link.abandon()

    def _hear(self, run: Run) -> None:
        if time.monotonic() >= run.rescue_due:
            self._rescue(run)
        if not run.done:
            self._pump(run, run.wait())

    def _pump(self, run: Run, wait: float | None) -> None:
        for event in self.link.receive(wait):
            run.heard = True
            self._take(event, run)

    def _cell(self, run: Run) -> tuple[int, int, int]:
        """Return what the control shell finds the cell's processes by: shell, supervisor, age in 10 ms."""
        ticks = int((time.monotonic() - run.sent_at) * 100) + 1
        return self.link.shell_pid if run.begun else 0, self.link.protocol.supervisor_pid, ticks

    def _rescue(self, run: Run) -> None:
        """Send what makes a shell report, or end; a deaf one is ended. Nobody may be there at all."""
        control, shell = self.link.control, self.link.shell_pid
        if self.link.orphaned():
            self._take(Exited(), run)
        elif run.listen(heard := control.heard(shell)):
            run.expected += self.link.recover(last=run.rescues == len(RESCUE_SECONDS) - 1)
        else:
            run.looks(heard, idle=control.idle(shell, self.link.protocol.supervisor_pid))
            if run.deaf:
                control.kill(shell)

    def _climb(self, run: Run, *, now: bool) -> None:
        self._pump(run, 0)  # it may have ended by now
        begin = run.sent_at + _BEGIN_SECONDS
        while not run.done and not run.begun and (left := begin - time.monotonic()) > 0:
            self._pump(run, left)  # it is about to begin
        if run.done:
            return
        run.ladder.climb(*self._cell(run), now=now)
        if run.ladder.unheard:
            run.pulse.ask()
        if run.ladder.exhausted:
            if not self._alone:
                self.link.drop()
                run.finish(None, "nothing could stop it; parts of it may still run", shell_ended=True)
                return
            with suppress(EngineError):  # it ends by itself then
                self.link.machine.close()
            self._lost(run, "nothing else could stop it, so the sandbox was ended; its files are lost")

    def _take(self, event: Event, run: Run) -> None:
        match event:
            case Died() | Exited() if run.done:
                self.link.between(event)
            case Output():
                run.output(event)
            case Started():
                run.begin()
            case Finished(code):
                run.finish(code)
            case Died(code) if run.begun:
                run.finish(run.true_code(code), *self.link.parting(ENDED), shell_ended=True)
                self.link.succeed()
            case Exited() if run.begun:
                self._stream_ended(run, self.link.exit_code() if run.fenced else None)
            case Died() | Exited():
                self._never_began(event, run)

    def _settle(self, run: Run) -> None:
        """Look whether more has ended than the cell: the shell by our order, or after its SIGKILL the sandbox."""
        if run.ladder.fatal and not run.shell_ended and self.link.dies(_FATAL_SECONDS):
            run.finish(run.exit_code, *self.link.parting(ENDED), shell_ended=True)
        end = time.monotonic() + _SETTLE_SECONDS
        while run.shell_ended and run.exit_code == _SIGKILL and self.link.connected:
            left = end - time.monotonic()
            if left <= 0:
                return
            if any(isinstance(event, Exited) for event in self.link.receive(left)):
                self.link.drop()
                if not self.link.machine.alive():
                    run.notes.clear()
                    self._lost(run, SANDBOX_ENDED)

    def _never_began(self, event: Event, run: Run) -> None:
        """The shell was gone before the cell reached it: nothing was run, so it may be sent again."""
        if isinstance(event, Exited):
            if not self.link.machine.alive():
                self._lost(run, "the sandbox has ended; this cell was not run")
                return
            if self.link.exit_code() is None:  # we were cut off, and it may have begun
                self._stream_ended(run, None)
                return
            self.link.drop()
        self.link.lost_between()
        self._send(run)

    def _stream_ended(self, run: Run, code: int | None) -> None:
        """The supervisor went with the shell; a new one is opened, unless the sandbox is gone."""
        if self.link.machine.alive():
            if code is None:
                self.link.cut_off()
            self.link.drop()
            run.finish(code, *self.link.parting(CUT if code is None else ENDED), shell_ended=True)
        else:
            self._lost(run, SANDBOX_ENDED)

    def _lost(self, run: Run, why: str) -> None:
        self.link.drop()
        self._closed = True
        run.finish(None, f"{why}; the next cell starts a new sandbox", shell_ended=True)
        run.error = run.error or self.link.machine.trouble()  # an engine that is gone is not the cell's failure

    @property
    def closed(self) -> bool:
        """Whether it can run nothing any more."""
        return self._closed

    def rest(self) -> float:
        """Return for how many seconds no command has run in it."""
        return 0.0 if self._busy.locked() else time.monotonic() - self.link.rested

    def usable(self) -> bool:
        """Whether it can run a cell; asks the engine only if the stream was lost."""
        return not self._closed and (self._busy.locked() or self.link.connected or self.link.machine.alive())
