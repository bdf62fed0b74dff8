"""`ShellLink`: the stream to one supervisor and its shell; opened, read between cells, opened again after a loss."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Iterator, Mapping

from sandbox_magic.control import ControlShell
from sandbox_magic.engines.base import Machine
from sandbox_magic.errors import ProtocolError, SandboxError
from sandbox_magic.greeting import greet
from sandbox_magic.inheritance import BETWEEN, Estate, bequeath
from sandbox_magic.late import LOST, Late
from sandbox_magic.outlets import Outlet, Outlets, Past, led_back
from sandbox_magic.protocol import (
    STREAMS,
    UNKNOWN_EXIT,
    Died,
    Event,
    Exited,
    Finished,
    Initialized,
    LateOutput,
    ShellProtocol,
    State,
)
from sandbox_magic.shell.lines import start_argv
from sandbox_magic.transport import Transport, watcher

_SOON_SECONDS = 0.05  # after a cell; see `ShellProtocol.send`


class ShellLink:
    """Keeps a shell at the other end of a stream. All but `wake` and `late` under the lock `io`.

    Attributes:
        io: Held by whoever reads.
        control: The shell beside this one.
        protocol: The conversation with the present supervisor.
        late: What was printed outside the cells.
        machine: The sandbox.
        notes: What the next result shall say.
        shell_pid: The shell's process id, as the sandbox sees it.
        opening: Whether the engine is at work for a new stream, which nobody's order ends before its time.
        rested: When the last cell had ended.
        led: The streams that a cell has led elsewhere, each with the sign that leads it; see diverted.py.
    """

    def __init__(
        self, machine: Machine, *, env: Mapping[str, str], shell: str | None, restore: bool, narrow: bool = False
    ) -> None:
        self.io = threading.Lock()
        self.machine = machine
        self.control = ControlShell(lambda: machine.open(["sh"]), narrow=narrow)
        self.protocol = ShellProtocol()
        self.notes: list[str] = []
        self.shell_pid = 0
        self.opening = self._orphaned = False
        self._env = dict(env)
        self._shell = shell
        self._name = secrets.token_hex(6)  # of the folder with the shell's state, which outlives a supervisor
        self._transport: Transport | None = None
        self.late = Late()
        self._outlets = Outlets(machine, self.control)
        self._code: str | None = None  # of the last cell, unless that was ours
        self._looked = True  # since then
        self._watched: list[int] = []
        self._estate, self._narrow = Estate(restore), narrow
        self.rested = 0.0
        self.led: dict[str, str] = {}
        self._soon = False  # whether the next one comes right after it

    @property
    def connected(self) -> bool:
        """Whether there is a stream."""
        return self._transport is not None

    # ---- opening

    def ensure(self) -> None:
        """Make sure that a shell is there, or on its way.

        Raises:
            StartTimeout: It did not answer in 30 s.
            ShellExited: It ended at once.
        """
        if self._transport is None:
            self.opening = True
            try:
                self._open()
            finally:
                self.opening = False
        elif self.protocol.state is State.DEAD:
            self.restart()

    def _open(self) -> None:
        transport = self.machine.open(start_argv(self._name, self._shell), env=self._env)
        if self._orphaned:
            self.cut_off()
        protocol = ShellProtocol(inherits=self._estate.exists or self._estate.given)
        transport.send(protocol.boot())
        try:
            greet(transport, protocol)
        except BaseException:
            self.protocol = protocol
            self._end()
            transport.close()
            raise
        protocol.follow(self.protocol)
        self._transport, self.protocol = transport, protocol
        self._outlets.begin(transport, protocol.supervisor_pid)
        self.control.open_in_background()  # before the first cell, which may use up all processes

    def restart(self) -> None:
        """Ask the supervisor for a new shell; it answers while the next cell is already on its way."""
        assert self._transport is not None
        self._estate.lost()
        self.led = {}
        self._outlets.home()
        self._transport.send(self.protocol.start())

    def succeed(self) -> None:
        """After the end of a shell, have the next one made ready; a job has no next cell."""
        if not self._narrow:
            self.restart()

    def exit_code(self) -> int | None:
        """Return the supervisor's exit code, after `Exited`; `None` unless a signal has ended it.

        It ends by itself only when our end is lost. Docker says 126 then, although it still runs.
        """
        code = self._transport.exit_code() if self._transport is not None else None
        return code if code is not None and code > 128 and code != UNKNOWN_EXIT else None

    def cut_off(self) -> None:
        """End what runs at the other end of a stream that was lost in the middle of a cell."""
        self._orphaned = False
        self._end()

    def abandon(self) -> None:
        """Give the stream up in the middle of a cell; what that has started is ended when there is a new one."""
        self._orphaned = True
        self.drop()

    def _end(self, after: str = "") -> None:
        pid = self.protocol.supervisor_pid
        with contextlib.suppress(SandboxError):  # then it ends with the sandbox, and prints to nobody
            self.control.call(f"{f'end {pid}' if pid else ':'}{after}")

    def drop(self) -> None:
        """Give the stream up; `ensure` opens a new one."""
        self.watch(False)
        self._estate.lost()
        self.led = {}
        self._outlets.close()
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    # ---- speaking

    def send(self, code: str, source: str, *, ours: bool = False) -> bool:
        """Send a cell that reads `source`; return whether it has begin fences, else it counts as running already."""
        assert self._transport is not None
        if self._outlets.ask(self.shell_pid):
            self._turn()
        soon, self._soon = self._soon and not self._outlets.suspect, False
        self._code, self._looked = None if ours else code, False
        self._transport.send(self.protocol.send(code, source=source, soon=soon, ours=ours))
        self._estate.sent()
        return self.protocol.state is not State.RUNNING

    def recover(self, *, last: bool = False) -> int:
        """Make an interrupted shell report; with `last`, or end. Return how many bytes it was sent."""
        if self._transport is None:
            return 0
        line = self.protocol.recover(last=last)
        self._transport.send(line)
        self.late.recovered()
        return len(line)

    def orphaned(self) -> bool:
        """Whether shell and supervisor are gone, although something that they have left keeps a stream open."""
        return self.protocol.severed or self.control.gone(self.protocol.supervisor_pid, self.shell_pid)

    def dies(self, seconds: float) -> bool:
        """Wait for the end of a shell that was ordered to end, and take it; return whether it has come."""
        end = time.monotonic() + seconds
        while self._transport is not None and (left := end - time.monotonic()) > 0:
            for event in self.receive(left):
                if isinstance(event, Died | Exited):
                    self.succeed() if isinstance(event, Died) else self.drop()
                    return True
        return False

    def receive(self, timeout: float | None) -> Iterator[Event]:
        """Yield what has come for the running cell; what belongs to no cell is kept here."""
        assert self._transport is not None
        protocol = self.protocol
        if not self._outlets.several:
            for stream, data in self._transport.receive(timeout):
                yield from self._taken(protocol.receive(stream, data), 0)
            return
        for number, (stream, data) in self._outlets.receive(timeout):
            yield from self._taken(protocol.receive(stream, data, number), number)
            if self.protocol is not protocol:
                return  # there is a new supervisor, and the others are closed
        for outlet in self._outlets.ended():
            self._ended(outlet)

    def _taken(self, events: list[Event], number: int) -> Iterator[Event]:
        for event in events:
            if isinstance(event, LateOutput):
                self.keep(LateOutput(event.stream, event.data, self._outlets.title(number)))
            elif isinstance(event, Initialized):
                self._initialized(event)
            else:
                ended = isinstance(event, Finished | Died) and not self._narrow  # a job has no next cell
                if ended and self._code is not None:
                    self._outlets.left(self._code, job=self.protocol.left_job, alone=self.protocol.alone)
                if ended and isinstance(event, Finished):
                    self._estate.reported()
                    if self._estate.wanted and self.protocol.changed and self._code is not None:
                        self.save()  # now: the next cell, which may end the shell, may come at once
                yield event

    def wake(self) -> None:
        """Make a waiting `receive` return; from any thread."""
        transport = self._transport
        if transport is not None:
            transport.wake()

    def _initialized(self, event: Initialized) -> None:
        self.shell_pid = event.shell_pid
        self.notes += self._estate.taken(event)

    def bequeath(self, heir: ShellLink) -> None:
        """Let the first shell of another link in this sandbox begin as if it were the next one here; see there."""
        bequeath(self.control, self.protocol.supervisor_pid, heir._name)
        heir._estate.given = True

    def forget(self) -> None:
        """End the supervisor and remove what the shell has left for a successor: there will be none."""
        places = ("/dev/shm", "/tmp", "/var/tmp", "/run", '"$HOME"')  # noqa: S108 # inside; those of supervisor.sh
        self._end(f"; rm -rf {' '.join(f'{place}/.sandbox-{self._name}' for place in places)}")

    # ---- between cells

    def past(self) -> list[Past]:
        """Return the last cells, and the one that runs."""
        return self._outlets.cells(self._code if self.protocol.state in (State.SENT, State.RUNNING) else None)

    def keep(self, event: LateOutput) -> None:
        """Keep what was printed outside any cell until somebody takes it."""
        if self.late.add(event):
            self._note(LOST)

    # ---- where cells print

    def _turn(self) -> None:
        """Have the shell print where no job does; it takes a moment, but only after a cell that has left something."""
        assert self._transport is not None
        before = self._outlets.current
        try:
            target = self._outlets.target(self.shell_pid)
        except (SandboxError, OSError) as error:
            self._note(f"what jobs print may be among the output of this cell: {error}")
            return
        if target is not before:
            self._transport.send(self.protocol.turn(target.number, target.holder))
            self._looked = False
            if self.led:
                self._note(led_back(self.led, self.protocol.places))  # the note before has named another place
        elif self._outlets.suspect:
            self._note("many jobs still run; what they print may be among the output of this cell")

    def _note(self, note: str) -> None:
        self.notes += [note] if note not in self.notes else []

    def _ended(self, outlet: Outlet) -> None:
        if (fd := outlet.transport.fileno()) in self._watched:
            watcher().remove(fd)
            self._watched.remove(fd)
        for stream in STREAMS:  # what was held back is late output
            list(self._taken(self.protocol.receive(stream, b"", outlet.number), outlet.number))
        self.protocol.forget(outlet.number)

    def _look(self) -> None:
        """In a pause: find out what still prints, so that the next cell need not wait for that."""
        if not self._looked and (self._outlets.suspect or self._outlets.unsure or self._outlets.several):
            if self._outlets.looked:
                self._take_sight()
            else:
                self._looked = True
                self._outlets.look(self.shell_pid, self._see)

    def _see(self) -> None:
        """Take what was found, once no cell runs."""
        with self.io:
            if self._watched and self._outlets.looked:
                self._take_sight()

    def _take_sight(self) -> None:
        if self.protocol.state is State.IDLE:
            self.watch(False)
            self._turn()
            self.watch(True)

    def parting(self, why: str) -> list[str]:
        """Return what is to be said at the end of a shell, and why that was."""
        return self._estate.parting(why, self.protocol.shell, job=self._narrow)

    @contextlib.contextmanager
    def _pause(self) -> Iterator[bool]:
        """Hold the lock, if no cell runs and the watcher reads; say so."""
        if not self.io.acquire(blocking=False):
            yield False
            return
        try:
            yield bool(self._watched) and self._transport is not None
        finally:
            self.io.release()

    def _rest(self) -> None:
        """Called by the watcher after a moment's rest: save what the text of the last cells did not tell of."""
        with self._pause() as idle:
            if idle and self._transport is not None and not self._transport.pending():
                if self._estate.wanted and self._estate.due:
                    self.save()
                self._look()

    def save(self) -> None:
        """Have the shell save its state."""
        line = self.protocol.checkpoint()
        if line and self._transport is not None:
            self._transport.send(line)
            self._estate.saved()

    def lost_between(self) -> None:
        """Note that the shell has ended while no cell ran."""
        self.late.ended()
        self.notes += self.parting(BETWEEN)

    def between(self, event: Event) -> None:
        """Take an event that comes while no cell runs: only the end of the shell means anything then."""
        if isinstance(event, Died | Exited):
            self.lost_between()
            self.restart() if isinstance(event, Died) else self._part()

    def _part(self) -> None:
        """Give the stream up without waiting for its other end: the watcher has more to do."""
        threading.Thread(target=self._end, name="sandbox-control", daemon=True).start()
        self.drop()

    def watch(self, on: bool) -> None:
        """Let the process's watcher read while no cell runs, or stop it."""
        for fd in self._watched:
            watcher().remove(fd)
        self._watched.clear()
        if on and self._transport is not None:
            self.rested = time.monotonic()
            for outlet in self._outlets:
                rest = [self._rest] if outlet.transport is self._transport else []
                self._watched.append(outlet.transport.fileno())
                watcher().add(self._watched[-1], self._drain, *rest)

    @contextlib.contextmanager
    def unwatched(self) -> Iterator[None]:
        """Keep the watcher away from the stream, and let it read again at the end, if there is a stream then."""
        with self.io:
            self.watch(False)
            try:
                yield
            finally:
                self.watch(True)

    def resume(self) -> None:
        """Take what has come since the last cell if the next one comes right after it."""
        rested = time.monotonic() - self.rested
        self._soon = self._transport is not None and rested < _SOON_SECONDS and not self._estate.writing
        if self._soon:
            for event in self.receive(0):
                self.between(event)
                self._soon = False

    def _drain(self) -> None:
        """Read what came between cells; called by the watcher."""
        with self._pause() as idle:  # else a run has begun, and stops the watcher in this moment
            if not idle:
                return
            try:
                for event in self.receive(0):
                    self.between(event)
            except ProtocolError as error:
                self.notes += self.parting(f"{error}; {BETWEEN}")
                self._part()
