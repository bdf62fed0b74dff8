"""`ShellLink`: the stream to one supervisor and its shell; opened, read between cells, opened again after a loss."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping

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
_STATE_END = "\n__=restored\n"
_STATE_TRIES = 100
_ECHO_SECONDS = 2.0
_LATE_MAX = 1 << 20  # bytes of late output that are kept until somebody takes them

ENDED = "the shell ended with this cell; the next cell gets a new one, with "
CUT = "the connection to the shell was lost, and the cell stopped; the next cell gets a new shell, with "
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
            self._open()
        elif self.protocol.state is State.DEAD:
            self.restart()

    def _open(self) -> None:
        transport = self.machine.open(start_argv(self._name, self._shell), env=self._env)
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
        while protocol.state is State.STARTING:
            left = deadline - time.monotonic()
            if left <= 0:
                raise StartTimeout(f"the shell in the sandbox did not answer in {_START_SECONDS:g} s")
            for stream, data in transport.receive(left):
                for event in protocol.receive(stream, data):
                    if isinstance(event, Ready):
                        transport.send(protocol.start())
                    elif isinstance(event, Exited):
                        code = transport.exit_code()
                        raise ShellExited(f"the sandbox's shell ended at once (exit code {code}): has the image a sh?")

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

    def lose(self, shell: int, supervisor: int, ticks: int) -> None:
        """Give the stream up in the middle of a cell (see `Ladder.climb`), and end what runs at its other end."""
        if self._transport is not None:
            self._end(f"finish {shell} {supervisor} {ticks}; kill -s KILL {shell}; " if shell else "")
        self.drop()

    def _end(self, before: str = "", after: str = "") -> None:
        pid = self.protocol.supervisor_pid
        with contextlib.suppress(SandboxError):  # then it ends with the sandbox, and prints to nobody
            self.control.call(f"{before}{f'end {pid}' if pid else ':'}{after}")

    def drop(self) -> None:
        """Give the stream up; `ensure` opens a new one."""
        self.watch(False)
        self._restoring = True
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    # ---- speaking

    def send(self, code: str, stdin: bytes | None, source: str) -> None:
        """Send a cell."""
        assert self._transport is not None
        self._transport.send(self.protocol.send(code, stdin=stdin, source=source))
        self._changed = True

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
        if self.protocol.halved:
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

    def receive(self, timeout: float | None) -> Iterator[Event]:
        """Yield what has come for the running cell; what belongs to no cell is kept here."""
        assert self._transport is not None
        protocol = self.protocol
        for stream, data in self._transport.receive(timeout):
            for event in protocol.receive(stream, data):
                if isinstance(event, LateOutput):
                    self._keep(event)
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

    def state(self) -> str:
        """Return shell text with what the shell has left for its successor: its exports, then its directory.

        Raises:
            SessionError: It was not found.
        """
        lines = f"while IFS= read -r line; do printf '%s\\n' \"$line\"; done </proc/{self.protocol.supervisor_pid}/fd/7"
        for _ in range(_STATE_TRIES):  # it may be just being written
            text, found, _ = self.control.call(lines, timeout=10, errors="surrogateescape").partition(_STATE_END)
            if found:
                return text + '\n\\cd -- "$PWD"'
        raise SessionError("the working directory and the exports of the shell cannot be read")

    def forget(self) -> None:
        """End the supervisor and remove what the shell has left for a successor: there will be none."""
        places = ("/dev/shm", "/tmp", "/var/tmp", "/run", '"$HOME"')  # noqa: S108 # inside; those of supervisor.sh
        self._end(after=f"; rm -rf {' '.join(f'{place}/.sandbox-{self._name}' for place in places)}")

    # ---- between cells

    def late_output(self) -> list[LateOutput]:
        """Take what background jobs have printed between cells."""
        taken = []
        while self._late:
            taken.append(self._late.popleft())
        self._late_size = 0
        return taken

    def _keep(self, event: LateOutput) -> None:
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
        bash = self.protocol.shell.rpartition("/")[2] == "bash"  # others cannot list their functions
        return RESTORED.format(" and functions", "") if bash else RESTORED.format("", "functions, ")

    def _checkpoint(self) -> None:
        """Save the shell's state if a cell has run since the last time; called by the watcher after a moment's rest."""
        if not self._restore or not self._changed or not self.io.acquire(blocking=False):
            return
        try:
            if self._watched >= 0 and self._transport is not None and not self._transport.pending():
                line = self.protocol.checkpoint()
                if line:
                    self._transport.send(line)
                    self._saved, self._changed = True, False
        finally:
            self.io.release()

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
            self._watched = self._transport.fileno()
            watcher().add(self._watched, self._drain, self._checkpoint)

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
