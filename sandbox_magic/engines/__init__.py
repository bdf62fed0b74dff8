"""The engines, by name, in the order in which ``auto`` asks them.

An engine of another package registers a class in the entry point group ``sandbox_magic.engines``; it is used by name.
"""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from sandbox_magic.engines.base import Engine, Sweep
from sandbox_magic.errors import EngineError, EngineUnavailable, InvalidOptions
from sandbox_magic.spec import SandboxSpec

GROUP = "sandbox_magic.engines"
# Where each class is; modules are imported when the engine is asked for, for an SDK is heavy.
_OURS = {
    "docker": "sandbox_magic.engines.docker:DockerEngine",
    "podman": "sandbox_magic.engines.podman:PodmanEngine",
    "bubblewrap": "sandbox_magic.engines.bubblewrap:BubblewrapEngine",
}
AUTO = tuple(_OURS)
# What says where an engine is. It may change between two sandboxes; those that run stay where they are.
_NAMING = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "CONTAINER_HOST")
_told: set[str] = set()


def _engine(name: str, docker_host: str | None = None) -> Engine:
    """Return the one object for an engine and an endpoint, also where the environment names that.

    Raises:
        InvalidOptions: There is no engine of that name.
    """
    return _made(name, docker_host, tuple(os.environ.get(variable) for variable in _NAMING))


@cache
def _made(name: str, docker_host: str | None, _environment: tuple[str | None, ...]) -> Engine:
    """Return a new engine; it keeps its connection."""
    if name in _OURS:
        module, _, kind = _OURS[name].partition(":")
        made = getattr(import_module(module), kind)(docker_host)
    else:
        theirs = {entry.name: entry for entry in entry_points(group=GROUP)}
        if name not in theirs:
            known = ", ".join(("auto", *_OURS, *sorted(theirs)))
            raise InvalidOptions(f"engine {name!r} is unknown; choose one of {known}")
        made = theirs[name].load()()
    assert isinstance(made, Engine)
    return made


os.register_at_fork(after_in_child=_made.cache_clear)  # connections that two processes use would mix their answers


def find_engine(spec: SandboxSpec) -> Engine:
    """Return the engine that a wish names; for ``auto`` the first that answers.

    An endpoint in the wish means Docker: no other engine is what was asked for.

    Raises:
        InvalidOptions: There is no engine of that name.
        EngineUnavailable: ``auto``, and none answers; the sentence says why for each.
    """
    if spec.engine != "auto":
        return _engine(spec.engine, spec.docker_host)
    if spec.docker_host:
        return _engine("docker", spec.docker_host)
    reasons = []
    for name in AUTO:
        engine = _engine(name)
        try:
            engine.connect()
        except EngineUnavailable as error:
            reasons.append(str(error))
        else:
            return engine
    raise EngineUnavailable("\n".join(reasons))


def fallback_note(engine: Engine) -> str:
    """Return the line that says, once in a process, that ``auto`` had to take another engine than the first."""
    if engine.name == AUTO[0] or engine.name in _told:
        return ""
    _told.add(engine.name)
    asked = " and no ".join(name.capitalize() for name in AUTO[: AUTO.index(engine.name)])
    difference = f": {engine.difference}" if engine.difference else ""
    return (
        f"no {asked} answers here, so this sandbox runs on {engine.name}{difference} (`sandbox-magic doctor` says why)"
    )


def every() -> list[Engine]:
    """Return all engines, working or not."""
    return [_engine(name) for name in (*_OURS, *sorted(entry_points(group=GROUP).names - _OURS.keys()))]


def working() -> list[Engine]:
    """Return the engines that can work here.

    Raises:
        EngineUnavailable: None can; the sentence says why for each.
    """
    probes = [(engine, engine.probe()) for engine in every()]
    found = [engine for engine, probe in probes if probe.available]
    if not found:
        raise EngineUnavailable("\n".join(probe.detail for _, probe in probes))
    return found


def sweep_all() -> dict[str, Sweep | EngineError]:
    """Remove the sandboxes whose owner is provably dead; return for each engine what it did, or why it did nothing.

    Raises:
        EngineUnavailable: No engine works, so nothing is known.
    """
    told: dict[str, Sweep | EngineError] = {}
    reasons = []
    for engine in every():
        try:
            engine.connect()
        except EngineUnavailable as error:
            reasons.append(str(error))
            told[engine.name] = error
            continue
        try:
            told[engine.name] = engine.sweep()
        except EngineError as error:  # the others' leftovers are not its fault
            told[engine.name] = error
    if len(reasons) == len(told):
        raise EngineUnavailable("\n".join(reasons))
    return told


def sweep_report() -> list[str]:
    """Sweep, and say in lines for people what was removed, what was left, and why.

    Raises:
        EngineUnavailable: No engine works, so nothing is known.
    """
    lines = []
    for name, done in sweep_all().items():
        if isinstance(done, EngineError):
            lines.append(f"{name}: nothing was looked at: {_shortly(done)}")
            continue
        lines += [f"{name}: removed {ident[:12]}: its owner is dead" for ident in done.removed]
        lines += [f"{name}: left {ident[:12]}: {why}" for ident, why in done.left]
        if not done.removed and not done.left:
            lines.append(f"{name}: there is no sandbox")
    return lines


def _shortly(error: EngineError) -> str:
    """Return the reason of an error on one line: of one that lists what was tried, without the advice."""
    tried = [line.strip() for line in str(error).splitlines() if line.startswith("  ")]
    return "; ".join(tried) or " ".join(str(error).split())
