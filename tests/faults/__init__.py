"""A real transport of a real engine that misbehaves, by a seed: what then may come out of a session, and what not."""

from __future__ import annotations

import contextlib
import os
import random
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sandbox_magic import CommandTimeout, EngineError, ProtocolError, Result, SessionError
from sandbox_magic.engines.base import Machine
from sandbox_magic.protocol import STDERR, STDOUT
from sandbox_magic.session import Session
from sandbox_magic.transport import Chunk, Transport

_CELL_SECONDS = 30.0  # none of the cells takes a second; what has not ended by then hangs
_RS = b"\x1e"
HARMLESS = ("single bytes", "any splits", "delays", "split writes", "stall", "wakes", "closed twice")
CUTS = ("cut", "cut in a fence", "cut as it is sent", "one stream ends")


@dataclass
class Plan:
    """What goes wrong with one transport.

    Attributes:
        kinds: Of `HARMLESS`, any number, and of `CUTS` at most one.
        at: After how many bytes it is cut, or how many fences or sends, or stalls.
        stream: Which stream ends first.
    """

    rng: random.Random
    kinds: frozenset[str]
    at: int
    stream: str

    @classmethod
    def of(cls, seed: int) -> Plan:
        """Return the plan of a seed."""
        rng = random.Random(seed)
        kinds = rng.sample(HARMLESS, rng.randint(0, 3))
        if rng.random() < 0.7:
            kinds.append(rng.choice(CUTS))
        few = {"cut in a fence": 14, "cut as it is sent": 8}
        most = next((few[kind] for kind in kinds if kind in few), rng.choice((100, 400, 4000, 150_000)))
        return cls(rng, frozenset(kinds), rng.randrange(most), rng.choice((STDOUT, STDERR)))

    @property
    def lossy(self) -> bool:
        """Whether something is lost, so that not every outcome can be known."""
        return not self.kinds.isdisjoint(CUTS)


class FaultyTransport:
    """A `Transport` around another."""

    def __init__(self, inner: Transport, plan: Plan) -> None:
        self._inner = inner
        self._plan = plan
        self._seen = self._delivered = self._fences = self._sends = 0
        self._over: set[str] = set()  # streams that we have ended
        self._stalled_until: float | None = None
        self._woken = False

    def fileno(self) -> int:
        return self._inner.fileno()

    def waits_on(self) -> dict[int, int]:
        return self._inner.waits_on()

    def pending(self) -> int:
        return self._inner.pending()

    def exit_code(self) -> int | None:
        return self._inner.exit_code()

    def wake(self) -> None:
        self._woken = True
        self._inner.wake()

    def close(self) -> None:
        self._inner.close()
        if "closed twice" in self._plan.kinds:
            self._inner.close()
            self._inner.wake()

    def send(self, data: bytes) -> None:
        self._sends += 1
        if "cut as it is sent" in self._plan.kinds and self._sends > self._plan.at and not self._over:
            self._inner.send(data[: self._plan.rng.randrange(len(data) + 1)])
            self._sever()
            return
        size = self._plan.rng.randint(1, 400) if "split writes" in self._plan.kinds else len(data) or 1
        for at in range(0, len(data), size):
            self._inner.send(data[at : at + size])

    def receive(self, timeout: float | None) -> list[Chunk]:
        plan = self._plan
        if self._stalls(timeout):
            return []
        if len(self._over) == 2:
            return [(STDOUT, b""), (STDERR, b"")]
        if "wakes" in plan.kinds and plan.rng.random() < 0.3:
            self._inner.wake()
        if "delays" in plan.kinds and plan.rng.random() < 0.2:
            time.sleep(plan.rng.random() * 0.02)
        chunks = [piece for chunk in self._inner.receive(timeout) for piece in self._split(chunk)]
        return self._ended(chunks) if plan.lossy else chunks

    def _stalls(self, timeout: float | None) -> bool:
        """Hear nothing for a second, once, from some byte on."""
        if "stall" not in self._plan.kinds or self._seen < self._plan.at:
            return False
        now = time.monotonic()
        if self._stalled_until is None:
            self._stalled_until = now + 1
        end = min(self._stalled_until, now + (3600 if timeout is None else timeout))
        stalls = now < self._stalled_until
        while not self._woken and time.monotonic() < end:
            time.sleep(0.005)
        self._woken = False
        return stalls

    def _split(self, chunk: Chunk) -> list[Chunk]:
        stream, data = chunk
        self._seen += len(data)
        if not data or len(data) > 20_000:
            return [chunk]
        if "single bytes" in self._plan.kinds:
            return [(stream, data[at : at + 1]) for at in range(len(data))]
        if "any splits" not in self._plan.kinds:
            return [chunk]
        pieces = []
        while data:
            size = self._plan.rng.randint(1, 40)
            pieces.append((stream, data[:size]))
            data = data[size:]
        return pieces

    def _ended(self, chunks: list[Chunk]) -> list[Chunk]:
        """Take away what comes after the cut."""
        kept: list[Chunk] = []
        for stream, data in chunks:
            if stream in self._over:
                continue
            left = self._left(data)
            if left is None:
                kept.append((stream, data))
                continue
            kept.append((stream, data[:left])) if left else None
            if "one stream ends" in self._plan.kinds and not self._over:
                self._over.add(self._plan.stream)
                kept.append((self._plan.stream, b""))
            elif "one stream ends" not in self._plan.kinds:
                self._sever()
                return [*kept, (STDOUT, b""), (STDERR, b"")]
        return kept

    def _left(self, data: bytes) -> int | None:
        """Return how many of these bytes still come; `None` if all, and more."""
        if "cut in a fence" in self._plan.kinds:
            for at in range(len(data)):
                self._fences += data[at : at + 1] == _RS
                if self._fences > self._plan.at:
                    return at + self._plan.rng.randrange(30)
            return None
        if "cut as it is sent" in self._plan.kinds:
            return None
        self._delivered += len(data)
        return None if self._delivered <= self._plan.at else max(0, len(data) - (self._delivered - self._plan.at))

    def _sever(self) -> None:
        """Lose the other side for real: it sees its end too."""
        self._over = {STDOUT, STDERR}
        sever(self._inner)


def sever(transport: Any) -> None:
    """Break the connection under a transport."""
    if hasattr(transport, "_sock"):
        with contextlib.suppress(OSError):
            transport._sock.shutdown(2)
        return
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (transport._stdin, *transport._names):
        os.dup2(null, fd)
    os.close(null)


class FaultyMachine(Machine):
    """A machine whose next stream to a supervisor goes wrong, and, by chance, the one of the control shell too."""

    def __init__(self, inner: Machine, seed: int) -> None:
        self._inner = inner
        self._left = 1 + seed % 2
        self._seed = seed
        self.plans: list[Plan] = []
        self.id, self.home, self.capabilities = inner.id, inner.home, inner.capabilities

    def open(self, argv: Sequence[str], *, user: str | None = None, env: Mapping[str, str] | None = None) -> Transport:
        transport = self._inner.open(argv, user=user, env=env)
        if "supervisor" not in argv:
            return transport
        if not self._left:
            return transport
        self._left -= 1
        plan = Plan.of(self._seed * 10 + self._left)
        self.plans.append(plan)
        return FaultyTransport(transport, plan)

    def describe(self) -> dict[str, object]:
        return self._inner.describe()

    def alive(self) -> bool:
        return self._inner.alive()

    def close(self) -> None:
        self._inner.close()


@dataclass(frozen=True)
class Cell:
    """A cell and what it does when nothing goes wrong."""

    code: str
    stdout: str = ""
    stderr: str = ""
    exit_code: int = 0
    ended: bool = False
    stdin: str | None = None


@dataclass
class Report:
    """What was seen.

    Attributes:
        runs, cells: How many.
        lost: How many cells had an unknown outcome, as is right after a cut.
        errors: How many raised an error of ours, of which class.
        wrong: What must not be, each with its seed.
        slowest: Seconds of the slowest cell.
    """

    runs: int = 0
    cells: int = 0
    lost: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def __str__(self) -> str:
        errors = ", ".join(f"{count} {name}" for name, count in self.errors.items()) or "none"
        return "\n".join(
            [
                *self.wrong,
                f"{self.runs} runs, {self.cells} cells: {self.lost} cut off and said so; errors: {errors}; "
                f"slowest cell {self.slowest:.1f} s; {len(self.wrong)} wrong",
            ]
        )


def cells(seed: int) -> list[Cell]:
    """Return the cells of a run; each names its run and its number in all that it prints, and leaves a trace."""
    rng = random.Random(seed)
    made = []
    for number in range(rng.randint(3, 6)):
        mark = f"{seed}.{number}"
        trace = f"echo {number} >>/tmp/faults-{seed}; "
        code = rng.randrange(1, 126)
        made.append(
            rng.choice(
                (
                    Cell(f"{trace}echo {mark}", f"{mark}\n"),
                    Cell(f"{trace}echo {mark} >&2; (exit {code})", "", f"{mark}\n", code),
                    Cell(f"{trace}echo {mark}; echo {mark} >&2; sleep 0.05", f"{mark}\n", f"{mark}\n"),
                    Cell(f"{trace}cat; (exit {code})", f"{mark}\n" * 50, "", code, stdin=f"{mark}\n" * 50),
                    Cell(f"{trace}yes {mark} | head -n 9999", f"{mark}\n" * 9999),
                    Cell(f"{trace}printf '\\036%s' {mark}", f"\x1e{mark}"),
                    Cell(f"{trace}echo {mark}; exit {code}", f"{mark}\n", "", code, ended=True),
                )
            )
        )
    return made


def run(machine: Machine, seeds: range, shell: str | None = None) -> Report:
    """Run the cells of these seeds, each in a session of its own on a machine that goes wrong."""
    report = Report()
    for seed in seeds:
        report.runs += 1
        faulty = FaultyMachine(machine, seed)
        session = Session(faulty, env={"LANG": "C.UTF-8", "HOME": machine.home}, shell=shell, alone=False)
        try:
            wrong = _one(session, faulty, seed, report)
        finally:
            session.forget()
            session.close()
        if wrong:
            report.wrong.append(f"seed {seed}: {wrong} with {[sorted(plan.kinds) for plan in faulty.plans]}")
    return report


def _one(session: Session, faulty: FaultyMachine, seed: int, report: Report) -> str:
    """Return what is wrong with a run; empty if nothing."""
    for number, cell in enumerate(cells(seed)):
        report.cells += 1
        begun = time.monotonic()
        lossy = any(plan.lossy for plan in faulty.plans) or not faulty.plans
        result: Result | None = None
        try:
            result = session.run(cell.code, stdin=cell.stdin, timeout=_CELL_SECONDS)
        except CommandTimeout:
            return f"cell {number} hangs"
        except (EngineError, ProtocolError, SessionError) as error:
            name = type(error).__name__
            report.errors[name] = report.errors.get(name, 0) + 1
        report.slowest = max(report.slowest, time.monotonic() - begun)
        lossy = lossy and any(plan.lossy for plan in faulty.plans)
        wrong = _wrong(cell, result, lossy=lossy)
        report.lost += result is not None and result.exit_code is None
        if wrong:
            return f"cell {number} {wrong}: {result!r} {result.notes if result else ''}"
    return _epilogue(session, faulty, seed)


def _wrong(cell: Cell, result: Result | None, *, lossy: bool) -> str:
    if result is None:
        return "" if lossy else "raises although nothing is lost"
    seen = result.stdout, result.stderr, result.exit_code, result.shell_ended
    if seen == (cell.stdout, cell.stderr, cell.exit_code, cell.ended):
        return ""
    if not lossy:
        return "is wrong"
    if result.exit_code is not None:
        return "claims to know its exit code"
    # What may have been the beginning of a fence, or not, is given back at the end of a stream.
    held = re.compile(r"\x1e[0-9a-f]{0,15}\Z")
    if not all(
        held.sub("", said) == own[: len(held.sub("", said))] or own.startswith(said)
        for own, said in ((cell.stdout, result.stdout), (cell.stderr, result.stderr))
    ):
        return "has output that is not its own"
    return "" if result.notes else "does not say what was lost"


def _epilogue(session: Session, faulty: FaultyMachine, seed: int) -> str:
    """All that was to go wrong is over once a new stream is open: then everything works, and nothing ran twice."""
    faulty._left = 0
    session.link.drop()
    result = session.run(f"cat /tmp/faults-{seed}; rm -f /tmp/faults-{seed}; echo over", timeout=_CELL_SECONDS)
    if result.exit_code != 0 or not result.stdout.endswith("over\n"):
        return f"the last cell: {result!r}"
    numbers = result.stdout.split()[:-1]
    return f"cells ran twice: {numbers}" if len(set(numbers)) != len(numbers) else ""
