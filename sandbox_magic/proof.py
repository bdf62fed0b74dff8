"""Which limits an engine really enforces: proved by going beyond them in a small sandbox, not read from a setting."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from sandbox_magic.engines.base import IMAGES, Engine, Machine
from sandbox_magic.errors import CommandTimeout, EngineError, SandboxError
from sandbox_magic.protocol import Output
from sandbox_magic.session import Session
from sandbox_magic.spec import SandboxSpec

ENFORCED, NOT_ENFORCED, UNKNOWN = "enforced", "not enforced", "unknown"
NAMES = ("memory", "processes", "processors")

_MEGABYTES = 64  # the limit
_LITTLE, _MUCH = 16, 160
# The limit, and how many are tried. A kernel of its own, such as gVisor's, takes more than the first for itself.
_PROCESSES = ((50, 80), (300, 400))
_FEW = 10
_SECONDS = 10.0  # in which a watchdog has looked many times, on a busy machine too
_SILENT_SECONDS = 2.0  # without one more process: there is none to be had

# dd, which every image has, holds a whole block in memory. It goes on, for a watchdog looks only now and then.
_ALLOCATE = "exec 2>/dev/null; dd if=/dev/zero of=/dev/null bs={megabytes}M count={count}"
# A shell that counts aloud what it has started; when no more can be started it gives up, or tries again and again.
_FORK = "sh -c 'i=0; while [ $i -lt {many} ]; do sleep 99 >&- 2>&- & i=$((i + 1)); echo $i; done' 2>/dev/null"


@dataclass(frozen=True, slots=True)
class Limit:
    """What is known about one limit of an engine.

    Attributes:
        name: One of `NAMES`.
        verdict: `ENFORCED`, `NOT_ENFORCED` or `UNKNOWN`; never guessed.
        why: What was seen, or why nothing was.
        runtime: The runtime that was asked for; empty if the engine chose.
    """

    name: str
    verdict: str
    why: str
    runtime: str = ""


def unproved(why: str, *names: str) -> tuple[Limit, ...]:
    """Return these limits, or all, as unknown."""
    return tuple(Limit(name, UNKNOWN, why) for name in names or NAMES)


def prove(engine: Engine, *, image: str | None = None, runtime: str | None = None) -> tuple[Limit, ...]:
    """Try the limits of an engine in sandboxes that have ended afterwards; fetches no image.

    Args:
        engine: One that works.
        image: The image to do it with, where the engine has images; `None` is the default one.
        runtime: One of its runtimes; `None` is its own choice.
    """
    if IMAGES not in engine.capabilities:
        image = None
    spec = SandboxSpec(image, engine.name, runtime=runtime)
    try:
        if missing := engine.missing(spec):
            return unproved(f"no image {missing} here, and none is fetched for this; fetch it, or name another one")
    except SandboxError as error:
        return unproved(f"the engine did not say whether the image is here: {_sentence(error)}")
    # Each in a sandbox of its own, for the first may end it, with one small limit: no other is reached before it.
    memory = _tried(engine, replace(spec, memory=_MEGABYTES << 20), "memory", _memory)
    for most, many in _PROCESSES:
        processes = _tried(engine, replace(spec, pids=most), "processes", partial(_processes, most, many))
        if processes.verdict != UNKNOWN:
            break
    processors = Limit("processors", UNKNOWN, "not tried: it takes long to tell a limit from a busy machine")
    return tuple(replace(limit, runtime=runtime or "") for limit in (memory, processes, processors))


def _tried(engine: Engine, spec: SandboxSpec, name: str, trial: Callable[[Session, Machine], tuple[str, str]]) -> Limit:
    try:
        machine = engine.start(spec, name="doctor")
        try:
            session = Session(machine, env={"HOME": machine.home})
            try:
                session.open()
                return Limit(name, *trial(session, machine))
            finally:
                session.close()
        finally:
            machine.close()
    except Exception as error:  # noqa: BLE001 # an engine of another package may raise anything: it is reported
        return Limit(name, UNKNOWN, f"the trial failed: {_sentence(error)}")


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


class _EndedError(Exception):
    """The sandbox is gone; its engine may have left the stream open."""


@dataclass(slots=True)
class _Tried:
    """What code has done that goes beyond a limit.

    Attributes:
        exit_code: `None` if it is unknown.
        stdout: What it has printed.
        heard: When it has printed last; in seconds after its begin, as all here.
        timed_out: It still ran at the end of its time, and so did its sandbox.
        ended: It has ended its sandbox.
    """

    exit_code: int | None = None
    stdout: bytes = b""
    heard: float = 0.0
    timed_out: bool = False
    ended: bool = False


def _run(session: Session, machine: Machine, code: str) -> _Tried:
    tried, begin = _Tried(), time.monotonic()

    def hear(output: Output) -> None:
        tried.heard = time.monotonic() - begin
        tried.stdout += output.data

    def look() -> float:
        if not machine.alive():
            raise _EndedError
        return 1.0

    try:
        tried.exit_code = session.run(code, timeout=_SECONDS, on_output=hear, tick=look).exit_code
    except CommandTimeout:
        tried.timed_out = True
        return tried
    except (EngineError, _EndedError):
        if machine.alive():
            raise
    tried.ended = not machine.alive()
    return tried


def _memory(session: Session, machine: Machine) -> tuple[str, str]:
    if _run(session, machine, _ALLOCATE.format(megabytes=_LITTLE, count=1)).exit_code != 0:
        return UNKNOWN, f"not even {_LITTLE} MB could be had under a limit of {_MEGABYTES} MB"
    by = machine.describe().get("limits by", "the engine")
    much = _run(session, machine, _ALLOCATE.format(megabytes=_MUCH, count=1 << 20))
    killed = (
        "killed, and the sandbox with it" if much.ended else "killed" if much.exit_code in (None, 137) else "refused"
    )
    end = "not stopped" if much.timed_out else killed
    why = f"a process of {_MUCH} MB under a limit of {_MEGABYTES} MB was {end}; the limits are kept by {by}"
    return (NOT_ENFORCED if much.timed_out else ENFORCED), why


def _processes(most: int, many: int, session: Session, machine: Machine) -> tuple[str, str]:
    tried = _run(session, machine, _FORK.format(many=many))
    made = max((int(word) for word in tried.stdout.split() if word.isdigit()), default=0)
    why = f"{made} more processes could be made under a limit of {most}" + tried.ended * ", then the sandbox ended"
    if made >= most:
        return NOT_ENFORCED, why
    if tried.timed_out and tried.heard > _SECONDS - _SILENT_SECONDS:
        return UNKNOWN, f"{why}, in {_SECONDS:g} seconds"
    return (ENFORCED if made >= _FEW else UNKNOWN), why
