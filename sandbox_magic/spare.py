"""`Made`: a sandbox that is ready to run cells; and the spare: one more of the same kind, which waits to be taken.

A process has one spare at most. It is made after a moment in which nothing was started and no cell has run, while a
sandbox of its kind lives, or once two of the kind were started. It is ended when nobody has wanted one for a time, and
when another kind is wanted. Like every sandbox it ends with this process, however this process ends.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from sandbox_magic.bounds import Bounds
from sandbox_magic.engines.base import Engine, Machine, Progress, silent
from sandbox_magic.errors import SandboxError
from sandbox_magic.per_process import PerProcess
from sandbox_magic.session import Session
from sandbox_magic.spec import TOOL_ENVIRONMENT, SandboxSpec

VARIABLE = "SANDBOX_MAGIC_SPARE"
REST_SECONDS = 0.5  # without a start and a cell, before one is made: it takes the processor from whoever runs
KEEP_SECONDS = 600.0  # after the last start, while a sandbox of its kind lives
LINGER_SECONDS = 30.0  # after the last one was closed


def session_in(machine: Machine, spec: SandboxSpec, env: Mapping[str, str], *, alone: bool = True) -> Session:
    """Return a session of a wish; it is not open yet."""
    env = TOOL_ENVIRONMENT | ({"HOME": machine.home} if machine.home else {}) | dict(env) | dict(spec.env)
    return Session(machine, env=env, shell=spec.shell, restore=spec.restore, alone=alone)


@dataclass(frozen=True, slots=True)
class Kind:
    """All that a sandbox is made by: equal ones can stand in for each other.

    Attributes:
        engine: The engine.
        spec: The wish.
        name: What is written on it.
        env: Environment of the session beside that of the wish.
    """

    engine: Engine
    spec: SandboxSpec
    name: str = ""
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @property
    def spare(self) -> bool:
        """Whether a spare of it may wait; none that holds folders of the host, which their owner may want to move."""
        if self.spec.mounts or self.spec.spare is False:
            return False
        return self.spec.spare or (
            self.engine.spare and os.environ.get(VARIABLE, "").lower() not in {"0", "false", "no", "off"}
        )

    def make(self, progress: Progress = silent) -> Made:
        """Start one, with its shell, and prove its limits.

        Raises:
            SandboxError: As of `Engine.start`, `Session.open` and `Bounds`; nothing is left of it.
        """
        stands_on = self.engine.stands_on(self.spec) if self.spare else None
        machine = self.engine.start(self.spec, name=self.name, progress=progress)
        session = None
        try:
            session = session_in(machine, self.spec, dict(self.env))
            session.open()
            bounds = Bounds(self.engine.name, machine, session, self.spec)
        except BaseException:
            if session is not None:
                session.close()
            machine.close()
            raise
        return Made(self, machine, session, bounds, stands_on)


@dataclass(frozen=True, slots=True)
class Made:
    """A sandbox in which nothing of the user's has run, with an open session and limits that were proved.

    Attributes:
        stands_on: See `Engine.stands_on`.
    """

    kind: Kind
    machine: Machine
    session: Session
    bounds: Bounds
    stands_on: object

    def fresh(self) -> bool:
        """Whether its shell answers, and it is what a new one would be; waits for a shell that is just starting."""
        try:
            self.session.ask(":")
            return self.session.usable() and self.stands_on == self.kind.engine.stands_on(self.kind.spec)
        except (SandboxError, OSError):  # then a start says why
            return False

    def close(self) -> None:
        """End it."""
        self.session.close()
        self.machine.close()


class Spares:
    """The spare of a process. Its thread lives while there is something to do or to wait for."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._kind: Kind | None = None  # of the last one that was started; `None`: no spare until the next start
        self._starts = 0  # of this kind, one after another
        self._live: weakref.WeakSet[Session] = weakref.WeakSet()  # of this kind
        self._wanted = 0.0  # when one of this kind was last started or closed
        self._spare: Made | None = None
        self._retired: list[Machine] = []  # to be closed
        self._making = False
        self._thread: threading.Thread | None = None

    def get(self, kind: Kind, progress: Progress = silent) -> Made:
        """Return a sandbox of this kind: the spare, or a new one.

        Raises:
            SandboxError: As of `Kind.make`.
        """
        if not kind.spare:
            return kind.make(progress)
        made = self._take(kind) or kind.make(progress)
        with self._changed:
            if kind != self._kind:
                self._kind, self._starts, self._live = kind, 0, weakref.WeakSet()
            self._starts += 1
            self._live.add(made.session)
            self.closed()
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="sandbox-spare", daemon=True)
                with suppress(RuntimeError):  # the interpreter is ending, and starts none
                    thread.start()
                    self._thread = thread
        return made

    def _take(self, kind: Kind) -> Made | None:
        with self._changed:
            while self._making and self._kind == kind:  # it is there sooner than another one
                self._changed.wait()
            if self._spare is None or self._spare.kind != kind:
                return None
            made, self._spare = self._spare, None
        good = False
        try:
            good = made.fresh()
        finally:  # also when somebody interrupts this
            if not good:
                _close(made)
        return made if good else None

    def closed(self) -> None:
        """Take note that one was closed."""
        with self._changed:
            self._wanted = time.monotonic()
            self._changed.notify_all()

    def retire(self, machine: Machine) -> bool:
        """Have a machine closed by the spare's thread: who has a spare need not wait. Say whether there is one."""
        with self._changed:
            if self._spare is None:
                return False
            self._retired.append(machine)
            self._changed.notify_all()
        return True

    def ready(self) -> Machine | None:
        """Return the machine that waits, for those who want to look at it."""
        spare = self._spare
        return spare.machine if spare is not None else None

    def end(self) -> None:
        """End the spare, and make none until the next start."""
        with self._changed:
            self._kind, self._live = None, weakref.WeakSet()
            self._changed.notify_all()
            while self._thread is not None:
                self._changed.wait()

    def _work(self) -> None:
        with self._changed:
            while (left := self._left()) is not None:
                if left > 0:
                    self._changed.wait(left)
                elif self._retired:
                    self._close(self._retired.pop())
                elif self._spare is not None:
                    self._drop(self._spare)
                elif self._kind is not None:
                    self._make(self._kind)
            self._thread = None
            self._changed.notify_all()

    def _left(self) -> float | None:
        """Return in how many seconds there is something to do; `None` for never."""
        if self._retired:
            return 0
        living = [session for session in self._live if not session.closed]
        since = time.monotonic() - self._wanted
        if self._spare is not None:
            keep = KEEP_SECONDS if living else LINGER_SECONDS
            return keep - since if self._spare.kind == self._kind else 0
        if self._kind is None or not (living or self._starts > 1):
            return None
        return REST_SECONDS - min([since, *(session.rest() for session in living)])

    def _make(self, kind: Kind) -> None:
        self._making, made = True, None
        with self._unlocked(), suppress(Exception):  # whoever starts one next is told why it cannot be
            made = kind.make()
            if not made.fresh():
                _close(made)
                made = None
        self._making, self._spare = False, made
        self._changed.notify_all()
        if made is None and self._kind == kind:
            self._kind = None  # not again and again

    def _drop(self, made: Made) -> None:
        self._spare = None
        if self._kind == made.kind:
            self._kind = None  # nobody has wanted it for long
        self._close(made)

    def _close(self, one: Made | Machine) -> None:
        with self._unlocked():
            _close(one)

    @contextmanager
    def _unlocked(self) -> Iterator[None]:
        self._changed.release()
        try:
            yield
        finally:
            self._changed.acquire()


def _close(one: Made | Machine) -> None:
    with suppress(SandboxError):  # it ends with this process
        one.close()


_of_parents: list[Spares] = []  # kept, unused: what they hold would end if they were dropped
spares = PerProcess(Spares, in_child=_of_parents.append)
