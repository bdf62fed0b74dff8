"""The engines, by name."""

from __future__ import annotations

from functools import cache

from sandbox_magic.engines.base import Engine, Probe
from sandbox_magic.errors import InvalidOptions
from sandbox_magic.spec import SandboxSpec

NAMES = ("auto", "docker")


@cache
def _docker(docker_host: str | None) -> Engine:
    from sandbox_magic.engines.docker import DockerEngine  # noqa: PLC0415 # the SDK is heavy

    return DockerEngine(docker_host)


def find_engine(spec: SandboxSpec) -> Engine:
    """Return the engine that a wish names.

    Raises:
        InvalidOptions: There is no engine of that name.
    """
    if spec.engine not in NAMES:
        raise InvalidOptions(f"engine {spec.engine!r} is unknown; choose one of {', '.join(NAMES)}")
    return _docker(spec.docker_host)


def probe_all() -> list[Probe]:
    """Return what each engine says of itself."""
    return [_docker(None).probe()]


def sweep_all() -> list[str]:
    """Remove the sandboxes whose owner is provably dead; return their ids.

    Raises:
        EngineUnavailable: No engine answers, so nothing is known.
    """
    return _docker(None).sweep()
