"""The wire protocol between us and the shell: cells become bytes, bytes become events. No I/O.

A cell travels as data and is evaluated in the session's own shell. Around it the shell prints *fences* on both output
streams: the byte RS (0x1e, rare in text), a prefix that is random for each session, a token that is random for each
cell, a word, and facts. What lies between the two fences of a stream is the cell's output, byte for byte; what lies
outside is late output of background jobs. The end fence carries the exit code. A *supervisor*, the shell's parent,
speaks with the token zero: it says that the shell is ready or dead. `shell/` holds the other side, docs/protocol.md
the reasons.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from enum import Enum, auto

from sandbox_magic.errors import InvalidOptions, ProtocolError
from sandbox_magic.fences import FENCE_MAX, RS, TOKEN, Stream, number
from sandbox_magic.shell.caution import Caution
from sandbox_magic.shell.lines import Lines

STDOUT, STDERR = "stdout", "stderr"
STREAMS = (STDOUT, STDERR)

_PREFIX = 16  # hexadecimal digits
_SUPERVISOR = b"0" * TOKEN
UNKNOWN_EXIT = 128 + 31  # of a supervisor that has lost us


@dataclass(frozen=True, slots=True)
class Output:
    """Bytes that the command, or between commands a background job, has printed.

    Attributes:
        stream: ``"stdout"`` or ``"stderr"``.
        data: The bytes as they came.
    """

    stream: str
    data: bytes

    def __str__(self) -> str:
        """Return the text without its last newline and what would steer a terminal: for ``on_output=print``."""
        from sandbox_magic.ansi import AnsiFilter  # noqa: PLC0415 # its patterns take a while

        return AnsiFilter(native_erase=True).feed(self.data.decode(errors="replace")).removesuffix("\n")


@dataclass(frozen=True, slots=True)
class LateOutput(Output):
    """What was printed outside any cell.

    Attributes:
        job: The line of a cell that has started what printed it, as far as that can be told; else empty.
    """

    job: str = ""


@dataclass(frozen=True, slots=True)
class Ready:
    """The supervisor runs and has started the shell.

    Attributes:
        pid: The supervisor's process id, as the sandbox sees it.
        shell: The shell's name or path.
    """

    pid: int
    shell: str


@dataclass(frozen=True, slots=True)
class Initialized:
    """The shell has taken its settings.

    Attributes:
        shell_pid: Its process id, as the sandbox sees it.
        restored: Whether it got an earlier shell's working directory and exports back.
        full: Whether it got a checkpoint back, too.
    """

    shell_pid: int
    restored: bool
    full: bool = False


@dataclass(frozen=True, slots=True)
class Started:
    """The cell has begun."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The cell has ended and the shell lives. All of its output came before this event."""

    exit_code: int


@dataclass(frozen=True, slots=True)
class Died:
    """The shell has ended with this exit code (`None` if it could not say); the supervisor lives."""

    exit_code: int | None


@dataclass(frozen=True, slots=True)
class Exited:
    """The stream has ended: shell and supervisor are gone, with an exit code that only the engine knows."""


Event = Output | Ready | Initialized | Started | Finished | Died | Exited


class State(Enum):
    """Where the conversation stands."""

    STARTING = auto()
    IDLE = auto()
    SENT = auto()
    RUNNING = auto()
    DEAD = auto()
    CLOSED = auto()


class ShellProtocol:
    """One conversation with one supervisor. Feed it what arrives, send what it returns.

    Attributes:
        state: Where the conversation stands.
        shell: The shell's name, once it is ready.
        supervisor_pid: The supervisor's process id inside the sandbox, once it is ready; else 0.
        last_exit_code: What ``$?`` shall be in the next cell.
        left_job: The job that the last cell has left in the background, as far as the shell knows; else 0.
        alone: Whether the last cell has started no process, as its text shows.
        turned: Whether the shell has done what the last `turn` asked for.
    """

    def __init__(self, *, inherits: bool = False) -> None:
        """Begin; the shell `inherits` if it will have what the cells of another one have done."""
        self.state = State.STARTING
        self.shell, self.supervisor_pid, self.last_exit_code = "", 0, 0
        self.left_job, self.alone, self.turned = 0, True, True
        self._prefix = os.urandom(_PREFIX // 2).hex().encode()
        self._token = self._random = b""
        self._flags = ""
        self._streams: dict[tuple[int, str], Stream] = defaultdict(lambda: Stream(self._prefix))
        self._turn(0)
        self._ended: dict[str, list[bytes]] = {}
        self._dead, self._closed = dict(self._ended), set[str]()
        self._lines: Lines | None = None
        self._caution = Caution(wary=inherits, names=inherits)
        self._initialized = self._full = self._ours = False
        self._quiet = False  # whether the last cell has left no job in the background, and us the shell's stdin
        self._job = b""  # the last job that the shell has started, as it says in the end fence

    @property
    def severed(self) -> bool:
        """Whether a stream has ended: nobody is there any more who holds both."""
        return bool(self._closed)

    @property
    def places(self) -> tuple[str, str]:
        """Where the shell prints, by its own paths: its stdout and its stderr."""
        if self._lines is None:
            raise ProtocolError("the shell is not ready")
        return self._lines.places

    def boot(self) -> bytes:
        """Return the first bytes to send; `Ready` answers them."""
        return self._prefix + b"\n"

    def follow(self, other: ShellProtocol) -> None:
        """Take over what the last shell of another supervisor has left to the first of this one."""
        self.last_exit_code, self._flags = other.last_exit_code, "e" * ("e" in other._flags)

    def start(self) -> bytes:
        """Return the bytes that give the shell its settings (after `Ready`), or a new shell (after `Died`)."""
        again = b"" if self.state is State.STARTING else b"start " + self._prefix + _SUPERVISOR + b"\n"
        if self._lines is None:
            raise ProtocolError("the shell is not ready")
        self.state = State.IDLE
        self._flags = "e" * ("e" in self._flags)  # a checkpoint restores it
        self._full, self._quiet, self._job = False, False, b""
        self._dead.clear()
        return again + (self.turn(0, 0) if self._outlet else b"") + self._lines.init

    def turn(self, outlet: int, holder: int) -> bytes:
        """Return the bytes that make the shell print elsewhere from now on, to be sent before the next cell.

        Args:
            outlet: The number of a pair of streams, as `receive` will be told it.
            holder: The process that has it as its stdout and stderr; any for the supervisor's own, number 0.
        """
        if self.state is not State.IDLE or self._lines is None:
            raise ProtocolError(f"the output cannot be turned while the shell is {self.state.name.lower()}")
        was = self._lines
        self._lines = Lines(self.shell, self.supervisor_pid, self._prefix, _SUPERVISOR, holder if outlet else 0)
        self._turn(outlet)
        self._quiet = self.turned = False
        return self._lines.turn(was)

    def _turn(self, outlet: int) -> None:
        self._outlet = outlet
        self._current = [self._streams[outlet, name] for name in STREAMS]

    def forget(self, outlet: int) -> None:
        """Drop what is known of a pair of streams that has ended."""
        for name in STREAMS:
            self._streams.pop((outlet, name), None)

    @property
    def changed(self) -> bool:
        """Whether the last cell may have changed what a checkpoint holds, as far as its text tells."""
        return self._caution.changes

    def checkpoint(self) -> bytes:
        """Return the bytes that save what a new shell shall have beside exports; nothing answers them."""
        lines = self._lines if self.state is State.IDLE else None
        return b"" if lines is None else lines.frail_save if self._caution.frail else lines.save

    def send(self, code: str, *, source: str = "", soon: bool = False, ours: bool = False) -> bytes:
        """Return the bytes that run a cell.

        Args:
            code: The cell, any text without NUL.
            source: A path inside that its standard input is opened from; end of file at once if empty.
            soon: It comes right after the last one and all that came since then was received: if there are no jobs in
                the background, nobody can print before it, and it has no begin fences.
            ours: Of ours, between two cells: for the next one it has not been, nor does it show in a trace.

        Raises:
            InvalidOptions: The cell holds a NUL byte, which no shell can take.
            ProtocolError: A cell is running, or there is no shell.
        """
        if self.state is not State.IDLE or self._lines is None:
            raise ProtocolError(f"no cell can be sent while the shell is {self.state.name.lower()}")
        text = code.encode(errors="surrogateescape")
        if b"\0" in text:
            raise InvalidOptions("a cell cannot hold a NUL byte: no shell can read it. Write it as \\0 for printf.")
        if not text.endswith(b"\n"):
            text += b"\n"  # else a backslash at the end would be an argument
        lines = self._lines
        text = text if ours else self._as_left(lines) + text
        status = self.last_exit_code if "e" not in self._flags and not ours else 0  # with -e it would end the shell
        self._token = self._fresh_token()
        reads = (source or "/dev/null").encode()
        caution = self._caution
        caution.look(text)
        self._ours = ours
        self.alone = ours or caution.alone
        # The other end of a source must know when it was opened.
        fenced = not (soon and self._quiet) or bool(source) or caution.perilous
        self.state = State.SENT if fenced else State.RUNNING
        for outlet in self._current:
            outlet.inside = not fenced
        self._ended.clear()
        return lines.cell(self._token, status, text, reads, fenced=fenced, caution=caution, ours=ours)

    def _as_left(self, lines: Lines) -> bytes:
        """Return what puts the options back that are lifted between cells."""
        text = b"".join(b"\\%s set -%s;" % (lines.word, flag.encode()) for flag in lines.lifted if flag in self._flags)
        if "a" in self._flags:  # the end of the last cell has exported it
            text = b"\\%s unset __;__=' ';" % lines.word + text
        return text

    def _fresh_token(self) -> bytes:
        """Return random digits that were never used; drawn for many cells at once, for each draw is a system call."""
        if not self._random:
            self._random = os.urandom(TOKEN * 64).hex().encode()
        token, self._random = self._random[:TOKEN], self._random[TOKEN:]
        return token

    def recover(self, *, last: bool = False) -> bytes:
        """Return the bytes that make a shell report which has not; harmless at any other time.

        To be sent after each signal, for dash forgets the lines that it had read ahead when SIGINT takes it to its top
        level; and once when a cell has been silent for a while, for a cell may have redefined what our lines call.

        Args:
            last: The first try has not helped: a shell that cannot report ends itself.
        """
        if self._lines is None:
            return b""
        return (self._lines.last if last else self._lines.recover).replace(b"@TOKEN@", self._token)

    def receive(self, stream: str, data: bytes, outlet: int = 0) -> list[Event]:
        """Take what one stream brought and return what it means.

        Args:
            stream: ``"stdout"`` or ``"stderr"``.
            data: The bytes; ``b""`` says that the stream has ended.
            outlet: Of which pair of streams: 0 for the supervisor's own, or as `turn` was told.

        Raises:
            ProtocolError: A fence that no shell of ours can have printed.
        """
        events: list[Event] = []
        source = self._streams[outlet, stream]
        if not data:
            self._end(source, stream, outlet, events)
            return events
        if not source.buffer and data.startswith(source.marker) and data.find(b"\n") == len(data) - 1 <= FENCE_MAX:
            body = data[len(source.marker) : -1]  # the usual case, one whole fence
            self._fence(source, stream, body[:TOKEN], body[TOKEN:].split(), events)
            return events
        if not source.buffer and RS not in data:
            self._output(source, stream, data, events)  # the other usual case, much output
            return events
        source.buffer += data
        for piece in source.take():
            if isinstance(piece, bytes):
                self._output(source, stream, piece, events)
            else:
                self._fence(source, stream, *piece, events)
        return events

    def _output(self, source: Stream, stream: str, data: bytes, events: list[Event]) -> None:
        if source.inside:
            events.append(Output(stream, data))
        elif self._initialized:  # what a shell prints before it has its settings is its own greeting
            events.append(LateOutput(stream, data))

    def _end(self, source: Stream, stream: str, outlet: int, events: list[Event]) -> None:
        if source.buffer and not source.buffer.startswith(source.marker):  # what begins with it was to become a fence
            self._output(source, stream, bytes(source.buffer), events)
        source.buffer.clear()
        if outlet:
            return
        self._closed.add(stream)
        if self._closed == set(STREAMS) and self.state is not State.CLOSED:
            self.state = State.CLOSED
            events.append(Exited())

    def _fence(self, source: Stream, stream: str, token: bytes, words: list[bytes], events: list[Event]) -> None:
        if token == _SUPERVISOR:
            self._aside(stream, words, events)
        elif token != self._token or not words or stream in self._ended:
            return  # of an earlier cell, or this one's once more: it came twice, after an interrupt in the report
        elif words[0] == b"begin":
            source.inside = True
            if stream == STDOUT and self.state is State.SENT:
                self.state = State.RUNNING
                events.append(Started())
        elif words[0] == b"end":
            source.inside = False
            if self.state in (State.SENT, State.RUNNING):
                self._ended.setdefault(stream, words[1:])
                if len(self._ended) == len(STREAMS):
                    self._finished(events)

    def _aside(self, stream: str, words: list[bytes], events: list[Event]) -> None:
        """Take what the supervisor or a new shell says, outside any cell."""
        match words:
            case [b"ready", pid, shell]:
                self.supervisor_pid, self.shell = number(pid), shell.decode(errors="replace")
                self._lines = Lines(self.shell, self.supervisor_pid, self._prefix, _SUPERVISOR)
                events.append(Ready(self.supervisor_pid, self.shell))
            case [b"absent"]:
                raise InvalidOptions("the sandbox has no such shell; without a wish it is bash, or else sh")
            case [b"nowhere"]:
                raise ProtocolError("the sandbox has no writable folder (tried /dev/shm, /tmp, /var/tmp, /run, HOME)")
            case [b"full"]:
                self._full = True
            case [b"turned"]:
                self.turned = True
            case [b"init", pid, *restored]:
                self._initialized = True
                events.append(Initialized(number(pid), restored == [b"restored"], self._full))
            case [b"dead", *code]:
                self._dead[stream] = code
                if len(self._dead) == len(STREAMS):
                    self._died(events)

    def _finished(self, events: list[Event]) -> None:
        if not self._ended[STDOUT]:
            raise ProtocolError("the fence at the end of a cell holds no exit code")
        code, *facts = self._ended[STDOUT]
        status = -number(code[1:]) if code.startswith(b"-") else number(code)  # zsh: `return -1`
        if not self._ours:
            self.last_exit_code = status
            self._flags = facts[0].decode(errors="replace") if facts else ""
        self._caution.wary |= any(flag in self._flags for flag in "axv")
        lines, job = (facts[-1][:1], facts[-1][1:]) if len(facts) > 1 else (b"", self._job)
        self.left_job, self._job = number(job) if job not in (self._job, b"quiet") else 0, job
        self._quiet = lines == b"0" and not self.left_job
        self.state, self._caution.saved = State.IDLE, True
        events.append(Finished(status & 0xFF))  # as a process would end

    def _died(self, events: list[Event]) -> None:
        code = number(self._dead[STDOUT][0]) if self._dead[STDOUT] else None
        for source in self._current:
            source.inside = False
        self.left_job = 0
        self.state = State.DEAD
        events.append(Died(code))
