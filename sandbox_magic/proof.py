"""Which limits an engine really enforces: proved by going beyond them in a small sandbox, not read from a setting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from sandbox_magic.engines.base import IMAGES, Engine, Machine
from sandbox_magic.errors import CommandTimeout, SandboxError
from sandbox_magic.result import Result
from sandbox_magic.session import Session
from sandbox_magic.spec import SandboxSpec

ENFORCED, NOT_ENFORCED, UNKNOWN = "enforced", "not enforced", "unknown"
NAMES = ("memory", "processes", "processors")

_MEGABYTES = 64  # the limit
_LITTLE, _MUCH = 16, 160
_PROCESSES = 50  # the limit
_FEW, _MANY = 10, 80
_SECONDS = 10.0  # in which a watchdog has looked many times, on a busy machine too

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
    spec = SandboxSpec(image, engine.name, memory=_MEGABYTES << 20, pids=_PROCESSES, runtime=runtime)
    try:
        if missing := engine.missing(spec):
            return unproved(f"no image {missing} here, and none is fetched for this; fetch it, or name another one")
    except SandboxError as error:
        return unproved(f"the engine did not say whether the image is here: {_sentence(error)}")
    # Each in a sandbox of its own: the first may end it.
    limits = _tried(engine, spec, _memory, "memory") + _tried(engine, spec, _others, "processes", "processors")
    return tuple(replace(limit, runtime=runtime or "") for limit in limits)


def _tried(
    engine: Engine, spec: SandboxSpec, trial: Callable[[Session, Machine], tuple[Limit, ...]], *names: str
) -> tuple[Limit, ...]:
    try:
        machine = engine.start(spec, name="doctor")
        try:
            session = Session(machine, env={"HOME": machine.home})
            try:
                session.open()
                return trial(session, machine)
            finally:
                session.close()
        finally:
            machine.close()
    except Exception as error:  # noqa: BLE001 # an engine of another package may raise anything: it is reported
        return unproved(f"the trial failed: {_sentence(error)}", *names)


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _run(session: Session, code: str) -> Result:
    try:
        return session.run(code, timeout=_SECONDS)
    except CommandTimeout as error:
        return error.result


def _memory(session: Session, machine: Machine) -> tuple[Limit, ...]:
    little = _run(session, _ALLOCATE.format(megabytes=_LITTLE, count=1))
    if little.exit_code != 0:
        return unproved(f"not even {_LITTLE} MB could be had under a limit of {_MEGABYTES} MB", "memory")
    by = machine.describe().get("limits by", "the engine")
    much = _run(session, _ALLOCATE.format(megabytes=_MUCH, count=1 << 20))
    what = f"a process of {_MUCH} MB under a limit of {_MEGABYTES} MB, kept by {by}, was"
    if much.timed_out:
        return (Limit("memory", NOT_ENFORCED, f"{what} not stopped"),)
    return (Limit("memory", ENFORCED, f"{what} {'killed' if much.exit_code in (None, 137) else 'refused'}"),)


def _others(session: Session, _machine: Machine) -> tuple[Limit, ...]:
    processors = Limit("processors", UNKNOWN, "not tried: it takes long to tell a limit from a busy machine")
    counted = _run(session, _FORK.format(many=_MANY)).stdout.split()
    made = max((int(word) for word in counted if word.isdecimal()), default=0)
    why = f"{made} more processes could be made under a limit of {_PROCESSES}"
    verdict = UNKNOWN if made < _FEW else ENFORCED if made < _PROCESSES else NOT_ENFORCED
    return (Limit("processes", verdict, why), processors)
