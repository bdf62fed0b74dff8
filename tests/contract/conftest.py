"""What every engine must do. `--engine NAME` chooses engines; one that was asked for and is missing fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox_magic import Sandbox
from sandbox_magic.engines import find_engine
from sandbox_magic.engines.base import Engine
from sandbox_magic.spec import SandboxSpec

# One entry an engine and shell: what a second engine adds is a line here.
PLACES = {
    "docker-bash": {"engine": "docker", "image": "debian:stable-slim"},
    "docker-dash": {"engine": "docker", "image": "debian:stable-slim", "shell": "sh"},
    "docker-busybox": {"engine": "docker", "image": "busybox:latest"},
    "podman-bash": {"engine": "podman", "image": "debian:stable-slim"},
    "bubblewrap-bash": {"engine": "bubblewrap"},
    "bubblewrap-dash": {"engine": "bubblewrap", "shell": "sh"},
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--engine", action="append", help="run the contract on this engine only (may be repeated)")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "place" in metafunc.fixturenames:
        wanted = metafunc.config.getoption("--engine")
        known = {place["engine"] for place in PLACES.values()}
        if wanted and not set(wanted) <= known:
            raise pytest.UsageError(f"--engine: choose from {', '.join(sorted(known))}")
        names = [name for name, place in PLACES.items() if not wanted or place["engine"] in wanted]
        needed = {mark.args[0] for mark in metafunc.definition.iter_markers("needs")}
        names = [name for name in names if needed <= _engine(name).capabilities]
        metafunc.parametrize("place", names, scope="module")


def _engine(place: str) -> Engine:
    return find_engine(SandboxSpec(engine=PLACES[place]["engine"]))


@pytest.fixture(scope="module")
def wish(place: str) -> dict[str, str]:
    """The arguments of a `Sandbox` at this place; the engine must answer."""
    probe = _engine(place).probe()
    assert probe.available, f"{place}: {probe.detail}"
    return PLACES[place]


@pytest.fixture
def bash(place: str) -> bool:
    """Whether the session's shell is bash."""
    return place.endswith("bash")


@pytest.fixture(scope="module")
def shared(wish: dict[str, str]) -> Iterator[Sandbox]:
    """A sandbox for tests that leave it as they found it."""
    with Sandbox(**wish) as box:
        yield box


@pytest.fixture
def box(wish: dict[str, str]) -> Iterator[Sandbox]:
    """A sandbox of the test's own."""
    with Sandbox(**wish) as own:
        yield own
