"""`Outlets`: where a shell and its jobs print, so that what a job prints later is apart from the cells that run then.

An outlet is a stdout and a stderr: those of the supervisor, or of a *holder*, a process that does nothing but have them
open. When a cell has left something behind that has the present outlet open, the shell is turned to another one.
"""

from __future__ import annotations

import contextlib
import math
import re
import secrets
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

from sandbox_magic.control import ControlShell
from sandbox_magic.engines.base import Machine
from sandbox_magic.errors import SandboxError, SessionError
from sandbox_magic.protocol import STREAMS
from sandbox_magic.transport import Chunk, Transport, first_line

MOST = 32  # outlets of one session

_BEHIND = re.compile(r"(?<![&<>|])&(?![&>])|[<>]\(")  # goes on by itself, as far as the shell is concerned
_OPEN_SECONDS = 15.0  # for a holder
_LOOK_SECONDS = 5.0  # for the control shell to look who holds what
_WAIT_SECONDS = 8.0  # of a cell, for both
_RESIGNED_SECONDS = 30.0  # in which no cell waits again
_TITLE = 200  # characters
_PAST = 1000  # cells
# Its name keeps it from being taken for a process of a cell; see shell/control.sh. It ends with its stdin, or a line.
_HOLDER = ["sh", "-c", 'IFS= read -r token && echo "$token $$" && IFS= read -r line', "sandbox-keeper-outlet"]


@dataclass(slots=True, eq=False)
class Outlet:
    """A stdout and a stderr.

    Attributes:
        number: Names it; 0 for the supervisor's own.
        transport: Its other end.
        holder: The process that has it open; the supervisor for number 0.
        title: The line that has started what was left there last, as far as can be told.
        ended: The streams that have ended.
        ending: Whether the holder was told to end.
    """

    number: int
    transport: Transport
    holder: int
    title: str = ""
    ended: set[str] = field(default_factory=set)
    ending: bool = False


@dataclass(frozen=True, slots=True)
class Past:
    """A cell that was, or is: its line that has started a job, or the first; when; the job that it has started last."""

    line: str
    begun: float
    ended: float
    job: int


@dataclass(frozen=True, slots=True)
class _Sight:
    """What was found: which outlets jobs hold, of those that were seen, and a fresh one if there was need."""

    held: frozenset[int]
    seen: frozenset[int]
    current: int
    lefts: int
    fresh: Outlet | None


class Outlets:
    """The outlets of one shell. All but what runs in its own thread under the lock of the link.

    Attributes:
        current: Where cells print.
        suspect: Whether something has probably been left that prints there, too.
        unsure: Whether the last cell has started processes, of which any may have stayed.
    """

    def __init__(self, machine: Machine, control: ControlShell) -> None:
        """Make none; `begin` has the first one."""
        self.suspect = self.unsure = False
        self._past: deque[Past] = deque(maxlen=_PAST)
        self._begun = 0.0
        self._machine = machine
        self._control = control
        self._numbers = 0
        self._lefts = 0  # how often a cell may have left something
        self._all: dict[int, Outlet] = {}
        self._looking: Future[_Sight] | None = None
        self._resigned = 0.0  # until then

    def begin(self, transport: Transport, supervisor: int) -> None:
        """Take the streams of a new supervisor, the only ones there are."""
        self.current = self._main = Outlet(0, transport, supervisor)
        self._all = {0: self._main}
        self.suspect = self.unsure = False

    def __iter__(self) -> Iterator[Outlet]:
        return iter(list(self._all.values()))

    @property
    def several(self) -> bool:
        """Whether there is another one than the supervisor's."""
        return len(self._all) > 1

    def title(self, number: int) -> str:
        """Return what prints to an outlet outside cells."""
        return self._all[number].title if number in self._all else ""

    def close(self) -> None:
        """Close all but the supervisor's."""
        for outlet in self:
            if outlet is not self._main:
                outlet.transport.close()
        self._all.clear()
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.add_done_callback(_close_fresh)

    # ---- reading

    def receive(self, timeout: float | None) -> Iterator[tuple[int, Chunk]]:
        """Yield what has come, with the number of the outlet; the end of a stream only for the supervisor's."""
        poll, owners = select.poll(), {}
        for outlet in self:
            for fd, events in outlet.transport.waits_on().items():
                poll.register(fd, events)
                owners[fd] = outlet
        ready = poll.poll(None if timeout is None else max(0.0, timeout) * 1000)
        for outlet in dict.fromkeys(owners[fd] for fd, _ in ready):
            for stream, data in outlet.transport.receive(0):
                if not data and outlet is not self._main:
                    outlet.ended.add(stream)
                else:
                    yield outlet.number, (stream, data)

    def ended(self) -> Iterator[Outlet]:
        """Yield those whose streams have ended, and close them then."""
        for outlet in self:
            if len(outlet.ended) == len(STREAMS):
                yield outlet
                self._all.pop(outlet.number, None)
                outlet.transport.close()

    # ---- turning

    def cells(self, running: str | None) -> list[Past]:
        """Return the last cells, and that of this text, which runs."""
        title = (running or "").strip().partition("\n")[0].strip()[:_TITLE]
        return [*self._past, *([Past(title, self._begun, math.inf, 0)] if running is not None else [])]

    def left(self, code: str, *, job: int, alone: bool) -> None:
        """After a cell: it may have left something behind.

        Args:
            code: Its text.
            job: Which, if the shell says so. It does not know of all: a subshell may have started it.
            alone: Whether it has started no process at all.
        """
        title = code.strip().partition("\n")[0]
        if job or _BEHIND.search(code):
            title = next((line for line in code.splitlines() if _BEHIND.search(line)), title)
            title = title.strip()[:_TITLE]
            self.suspect, self.current.title = True, title
        elif not self.suspect:  # whatever is printed there now is of this cell: what was before it has come before it
            title = "" if alone else title.strip()[:_TITLE]
            self.unsure, self.current.title = not alone, title
        self._lefts += not alone
        if not alone:
            self._past.append(Past(title, self._begun, time.monotonic(), job))

    def ask(self, shell: int) -> bool:
        """Return whether the shell is to be turned now; looks who is there if the last one left that open."""
        if self.unsure:
            self.unsure = False
            if self._looking is not None or time.monotonic() < self._resigned:
                self.suspect = True  # whoever turns the shell hears of it
            else:
                self.suspect = self.current.number in self._held(dict(self._all), self.current, shell)
        self._begun = time.monotonic()
        return self.suspect

    def home(self) -> None:
        """A new shell prints to the supervisor's, whoever else does."""
        self.suspect |= self.current is not self._main
        self.current = self._main

    @property
    def looked(self) -> bool:
        """Whether something was found that `target` has not taken yet."""
        return self._looking is not None and self._looking.done()

    def look(self, shell: int, then: Callable[[], None] = lambda: None) -> None:
        """Find out in a thread of its own who holds what, and open another outlet if there is need; again is harmless.

        Args:
            shell: The shell's process id.
            then: Called in that thread when it is done.
        """
        if self._looking is not None:
            return
        looking = self._looking = Future()
        outlets, current, lefts = dict(self._all), self.current, self._lefts

        def work() -> None:
            try:
                held = self._held(outlets, current, shell)
                fresh = self._open() if len(held) == len(outlets) < MOST else None
                looking.set_result(_Sight(held, frozenset(outlets), current.number, lefts, fresh))
            except BaseException as error:  # noqa: BLE001 # whoever takes the result raises it
                looking.set_exception(error)
            then()

        threading.Thread(target=work, name="sandbox-outlet", daemon=True).start()

    def _held(self, outlets: Mapping[int, Outlet], current: Outlet, shell: int) -> frozenset[int]:
        holders = [outlet.holder for outlet in outlets.values()]
        try:
            command = f"held {shell} {current.holder} {' '.join(map(str, holders))}"
            found = self._control.call(command, timeout=_LOOK_SECONDS).split()
        except SandboxError:  # nobody can say
            return frozenset(outlets)
        return frozenset(number for number, outlet in outlets.items() if str(outlet.holder) in found)

    def _open(self) -> Outlet:
        transport = self._machine.open(_HOLDER)
        try:
            token = secrets.token_hex(8)
            transport.send(f"{token}\n".encode())
            line, _ = first_line(transport, _OPEN_SECONDS)
            if not line:
                raise SessionError("no other place for the output of cells could be made in the sandbox")
            first, _, pid = line.partition(b" ")
            if first != token.encode() or not pid.isdigit():
                raise SessionError("what was to hold the output of cells has said something else")
        except BaseException:
            transport.close()
            raise
        self._numbers += 1
        return Outlet(self._numbers, transport, int(pid))

    def target(self, shell: int) -> Outlet:
        """Return where the shell is to print; looks if that has not been done, and tells holders to end that are free.

        Raises:
            SandboxError: It cannot be told, or no other outlet be opened.
        """
        while True:
            self.look(shell)
            sight = self._sight()
            if sight.fresh is not None:
                self._all[sight.fresh.number] = sight.fresh
            if (sight.current, sight.lefts) == (self.current.number, self._lefts):  # else there was a cell since
                return self._chosen(sight)

    def _sight(self) -> _Sight:
        """Wait for what is found, unless that was in vain a moment ago: processes may be short for long."""
        looking = self._looking
        assert looking is not None
        patient = time.monotonic() > self._resigned
        try:
            return looking.result(_WAIT_SECONDS if patient else 0)
        except BaseException as error:
            if patient:
                self._resigned = time.monotonic() + _RESIGNED_SECONDS
            if isinstance(error, TimeoutError):
                raise SessionError("no other place for the output of cells was made in time") from None
            raise
        finally:
            if looking.done():
                self._looking = None

    def _chosen(self, sight: _Sight) -> Outlet:
        """Return the supervisor's outlet if it is free, else the present one, else another one."""
        free = [outlet for outlet in self if outlet.number in sight.seen - sight.held and not outlet.ending]
        target = next((outlet for outlet in free if outlet in (self._main, self.current)), None)
        target = target or sight.fresh or next(iter(free), self.current)
        for outlet in free:
            if outlet not in (self._main, self.current, target):
                outlet.ending = True
                outlet.transport.send(b"\n")
        self.current, self.suspect, self.unsure = target, target.number in sight.held, False
        return target


def _close_fresh(looking: Future[_Sight]) -> None:
    """Close what was opened for a link that is gone."""
    with contextlib.suppress(BaseException):
        if (fresh := looking.result().fresh) is not None:
            fresh.transport.close()


def led_back(led: Mapping[str, str], places: tuple[str, str]) -> str:
    """Say which streams of a shell are led elsewhere, each with the sign that leads it, and how they come back."""
    back = " ".join(f"{led[name]}{place}" for name, place in zip(STREAMS, places, strict=True) if name in led)
    return f"later cells show no {' and '.join(led)} either: it was led elsewhere; `exec {back}` brings it back"
