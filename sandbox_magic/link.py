"""`ShellLink`: the stream to one supervisor and its shell; opened, read between cells, opened again after a loss."""

from __future__ import annotations

import contextlib
import secrets
import shlex
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping

from sandbox_magic.ansi import sanitize
from sandbox_magic.control import ControlShell
from sandbox_magic.engines.base import Machine
from sandbox_magic.errors import ProtocolError, SandboxError, SessionError, ShellExited, StartTimeout
from sandbox_magic.protocol import (
    STDERR,
    UNKNOWN_EXIT,
    Died,
    Event,
    Exited,
    Initialized,
    LateOutput,
    Ready,
    ShellProtocol,
    State,
)
from sandbox_magic.shell.lines import start_argv
from sandbox_magic.transport import Transport, watcher

_START_SECONDS = 30.0
_SAID_MAX = 300  # bytes
_STATE_END = "\n__=restored\n"
_STATE_TRIES = 100
_ECHO_SECONDS = 2.0
_SOON_SECONDS = 0.05  # after a cell; see `ShellProtocol.send`
_LATE_MAX = 1 << 20  # bytes of late output that are kept until somebody takes them

ENDED = "the shell ended with this cell; the next cell gets a new one, with "
CUT = "the stream to the shell has ended, how far the cell came is not known; the next cell gets a new one, with "
SANDBOX_ENDED = "the sandbox itself has ended during this cell; its files are lost"
BETWEEN = "the shell had ended since the last cell; this is a new one, with "
KEPT = "the same directory and exports (lost: variables, functions, jobs)"
RESTORED = "the same directory and exports, and the variables{} of the last pause (lost: {}jobs, traps, open files)"
NOT_KEPT = "nothing restored: what a new shell needs was lost too"


class ShellLink:
    """Keeps a shell at the other end of a stream. All but `wake` and `late_output` under the lock `io`.

    Attributes:
        io: Held by whoever reads.
        control: The shell beside this one.
        protocol: The conversation with the present supervisor.
        machine: The sandbox.
        notes: What the next result shall say.
        shell_pid: The shell's process id, as the sandbox sees it.
        opening: Whether the engine is at work for a new stream, which nobody's order ends before its time.
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
        self.opening = False
        self._orphaned = False
        self._env = dict(env)
        self._shell = shell
        self._name = secrets.token_hex(6)  # of the folder with the shell's state, which outlives a supervisor
        self._transport: Transport | None = None
        self._late: deque[LateOutput] = deque()
        self._late_size = 0
        self._farewell: LateOutput | None = None
        self._recovered = 0.0  # when the shell was last told to go on after a signal
        self._restoring = False
        self._watched = -1
        self._restore, self._narrow = restore, narrow
        self._saved = False  # whether there is a checkpoint
        self._changed = False  # since then
        self._rested = 0.0  # when the last cell had ended
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
        protocol = ShellProtocol()
        transport.send(protocol.boot())
        try:
            self._greet(transport, protocol)
        except BaseException:
            self.protocol = protocol
            self._end()
            transport.close()
            raise
        self._transport, self.protocol = transport, protocol
        self.control.open_in_background()

    @staticmethod
    def _greet(transport: Transport, protocol: ShellProtocol) -> None:
        """Wait for the supervisor and give its shell the settings."""
        deadline = time.monotonic() + _START_SECONDS
        said = b""
        while protocol.state is State.STARTING:
            left = deadline - time.monotonic()
            if left <= 0:
                raise StartTimeout(f"the shell in the sandbox did not answer in {_START_SECONDS:g} s")
            for stream, data in transport.receive(left):
                said = (said + data)[-_SAID_MAX:]
                for event in protocol.receive(stream, data):
                    if isinstance(event, Ready):
                        transport.send(protocol.start())
                if protocol.severed:
                    code = transport.exit_code()
                    why = sanitize(said.decode(errors="replace").strip()) or "it said nothing"
                    raise ShellExited(f"the sandbox's shell ended at once (exit code {code}): {why}")

    def restart(self) -> None:
        """Ask the supervisor for a new shell; it answers while the next cell is already on its way."""
        assert self._transport is not None
        self._restoring = True
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
        self._restoring = True
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    # ---- speaking

    def send(self, code: str, source: str) -> bool:
        """Send a cell that reads `source`; return whether it has begin fences, else it counts as running already."""
        assert self._transport is not None
        soon, self._soon = self._soon, False
        self._transport.send(self.protocol.send(code, source=source, soon=soon))
        self._changed = True
        return self.protocol.state is not State.RUNNING

    def recover(self, *, last: bool = False) -> int:
        """Make an interrupted shell report; with `last`, or end. Return how many bytes it was sent."""
        if self._transport is None:
            return 0
        line = self.protocol.recover(last=last)
        self._transport.send(line)
        self._recovered = time.monotonic()
        return len(line)

    def orphaned(self) -> bool:
        """Whether shell and supervisor are gone, although something that they have left keeps a stream open."""
        if self.protocol.severed:
            return True
        tests = f"[ -d /proc/{self.protocol.supervisor_pid} ] || [ -d /proc/{self.shell_pid} ]"
        with contextlib.suppress(SandboxError):  # nobody can say
            return "gone" in self.control.call(f"{tests} || echo gone")
        return False

    def heard(self) -> int | None:
        """Return how many bytes the shell has read so far; `None` if nobody can say."""
        with contextlib.suppress(SandboxError, ValueError):
            return int(self.control.call(f"heard {self.shell_pid}"))
        return None

    def kill(self) -> None:
        """End the shell."""
        with contextlib.suppress(SandboxError):  # then there is still the ladder
            self.control.call(f"kill -s KILL {self.shell_pid}")

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
        for stream, data in self._transport.receive(timeout):
            for event in protocol.receive(stream, data):
                if isinstance(event, LateOutput):
                    self.keep(event)
                elif isinstance(event, Initialized):
                    self._initialized(event)
                else:
                    yield event

    def wake(self) -> None:
        """Make a waiting `receive` return; from any thread."""
        transport = self._transport
        if transport is not None:
            transport.wake()

    def _initialized(self, event: Initialized) -> None:
        self.shell_pid = event.shell_pid
        if self._restoring and not event.restored:
            self.notes.append(f"the new shell has {NOT_KEPT}")
        elif self._restoring and self._saved and not event.full:
            self.notes.append("the new shell has working directory and exports only: no checkpoint was readable")
        self._restoring = False

    def bequeath(self, heir: ShellLink) -> None:
        """Let the first shell of another link in this sandbox begin as if it were the next one here.

        Raises:
            SessionError: What this shell has left was not found, or there is no room for a copy.
        """
        here = f"/proc/{self.protocol.supervisor_pid}"
        lines = f"while IFS= read -r line; do printf '%s\\n' \"$line\"; done <{here}/fd/7"
        for _ in range(_STATE_TRIES):  # it may be just being written
            text, found, _ = self.control.call(lines, timeout=10, errors="surrogateescape").partition(_STATE_END)
            if found:
                break
        folder = f".sandbox-{heir._name}"  # beside ours: its supervisor looks there first, too
        copy = (
            f"(cd -P {here}/cwd/.. && mkdir -m 700 {folder} && cd {folder} && umask 077 && "
            f"printf %s {shlex.quote(text + found)} >state && "
            f"{{ [ ! -e {here}/cwd/checkpoint ] || cat {here}/cwd/checkpoint >checkpoint; }} && echo done)"
        )
        if not found or "done" not in self.control.call(copy, timeout=10):
            raise SessionError("the state of the shell cannot be handed to another one")

    def forget(self) -> None:
        """End the supervisor and remove what the shell has left for a successor: there will be none."""
        places = ("/dev/shm", "/tmp", "/var/tmp", "/run", '"$HOME"')  # noqa: S108 # inside; those of supervisor.sh
        self._end(f"; rm -rf {' '.join(f'{place}/.sandbox-{self._name}' for place in places)}")

    # ---- between cells

    def late_output(self) -> list[LateOutput]:
        """Take what background jobs have printed between cells."""
        taken = []
        while self._late:
            taken.append(self._late.popleft())
        self._late_size = 0
        return taken

    def keep(self, event: LateOutput) -> None:
        """Keep what was printed outside any cell until somebody takes it."""
        if (event.stream, event.data) == (STDERR, b"\n") and time.monotonic() - self._recovered < _ECHO_SECONDS:
            return  # what an interactive bash says to a SIGINT that came when its cell had just ended
        held, self._farewell = self._farewell, None
        if held is not None:
            self._append(held)
        if (event.stream, event.data) == (STDERR, b"exit\n"):
            self._farewell = event  # what an interactive bash says when it ends; `lost_between` drops it
        else:
            self._append(event)

    def _append(self, event: LateOutput) -> None:
        self._late.append(event)
        self._late_size += len(event.data)
        while self._late_size > _LATE_MAX:
            self._late_size -= len(self._late.popleft().data)
            note = f"background jobs printed more than {_LATE_MAX >> 20} MB between cells; the oldest of it is lost"
            if note not in self.notes:
                self.notes.append(note)

    def kept(self) -> str:
        """Say what the next shell will have."""
        if not self._restore:
            return KEPT
        lists = self.protocol.shell.rpartition("/")[2] in {"bash", "zsh"}  # others cannot list their functions
        return RESTORED.format(" and functions", "") if lists else RESTORED.format("", "functions, ")

    def _checkpoint(self) -> None:
        """Save the shell's state if a cell has run since the last time; called by the watcher after a moment's rest."""
        if not self._restore or not self._changed or not self.io.acquire(blocking=False):
            return
        try:
            if self._watched >= 0 and self._transport is not None and not self._transport.pending():
                self.save()
        finally:
            self.io.release()

    def save(self) -> None:
        """Have the shell save its state."""
        line = self.protocol.checkpoint()
        if line and self._transport is not None:
            self._transport.send(line)
            self._saved, self._changed = True, False

    def lost_between(self) -> None:
        """Note that the shell has ended while no cell ran."""
        self._farewell = None
        self.notes.append(BETWEEN + self.kept())

    def between(self, event: Event) -> None:
        """Take an event that comes while no cell runs: only the end of the shell means anything then."""
        if isinstance(event, Died):
            self.lost_between()
            self.restart()
        elif isinstance(event, Exited):
            self.lost_between()
            self._part()

    def _part(self) -> None:
        """Give the stream up without waiting for its other end: the watcher has more to do."""
        threading.Thread(target=self._end, name="sandbox-control", daemon=True).start()
        self.drop()

    def watch(self, on: bool) -> None:
        """Let the process's watcher read while no cell runs, or stop it."""
        if self._watched >= 0:
            watcher().remove(self._watched)
            self._watched = -1
        if on and self._transport is not None:
            self._rested = time.monotonic()
            self._watched = self._transport.fileno()
            watcher().add(self._watched, self._drain, self._checkpoint)

    def resume(self) -> None:
        """Stop the watcher, and take what has come since the last cell if the next one comes right after it."""
        self.watch(False)
        self._soon = self._transport is not None and time.monotonic() - self._rested < _SOON_SECONDS
        if self._soon:
            for event in self.receive(0):
                self.between(event)
                self._soon = False

    def _drain(self) -> None:
        """Read what came between cells; called by the watcher."""
        if not self.io.acquire(blocking=False):
            return  # a run has begun, and stops the watcher in this moment
        try:
            if self._watched < 0 or self._transport is None:
                return
            for event in self.receive(0):
                self.between(event)
        except ProtocolError as error:
            self.notes.append(f"{error}; {BETWEEN}{self.kept()}")
            self._part()
        finally:
            self.io.release()
