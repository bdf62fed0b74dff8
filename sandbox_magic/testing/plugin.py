"""The pytest plugin of the contract: where its tests run, and the sandboxes that they get."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from sandbox_magic import InvalidOptions, Sandbox, SandboxSpec
from sandbox_magic.engines import find_engine
from sandbox_magic.engines.base import Engine

Places = Mapping[str, Mapping[str, Any]]

_NOWHERE = "nowhere"  # stands for no place at all, until the test is deselected
_SECONDS = 120  # for a test, where the caller has set no other time


class Hooks:
    """What a ``conftest.py`` can answer."""

    def pytest_sandbox_places(self) -> Places:
        """Return the places where the contract is run: a name for each, and the arguments of its `Sandbox`."""
        raise NotImplementedError  # pytest only reads the signature


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Tell pytest of our hook."""
    pluginmanager.add_hookspecs(Hooks)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--engine``."""
    parser.addoption("--engine", action="append", help="run the contract on this engine only (may be repeated)")


def pytest_configure(config: pytest.Config) -> None:
    """Register our markers."""
    for marker in (
        "needs(capability): the engine must declare this capability; else the test is not run there",
        "alike(argument, ...): of places that differ only in these, such as the shell, the first one does",
    ):
        config.addinivalue_line("markers", marker)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test of the contract at each place whose engine can do what it needs."""
    if "place" not in metafunc.fixturenames:
        return
    needed = {mark.args[0] for mark in metafunc.definition.iter_markers("needs")}
    alike = {name for mark in metafunc.definition.iter_markers("alike") for name in mark.args}
    places = [
        pytest.param(arguments, id=name)
        for name, arguments in _first_of_each(_places(metafunc), alike).items()
        if needed <= _engine(arguments).capabilities
    ]
    metafunc.parametrize("place", places or [_NOWHERE], scope="module", indirect=True)


def _places(metafunc: pytest.Metafunc) -> Places:
    """Return the declared places of the engines that were asked for; one that declares none has one of its name."""
    told: list[Places] = metafunc.config.hook.pytest_sandbox_places()
    declared = {name: arguments for places in told for name, arguments in places.items()}
    wanted: list[str] | None = metafunc.config.getoption("--engine")
    if wanted is None:
        if not declared:
            raise pytest.UsageError("the contract needs to know on which engine: --engine NAME")
        return declared
    found = {name: arguments for name, arguments in declared.items() if arguments["engine"] in wanted}
    have = {arguments["engine"] for arguments in found.values()}
    return found | {name: {"engine": name} for name in wanted if name not in have}


def _first_of_each(places: Places, alike: set[str]) -> Places:
    """Return the places without those that differ from an earlier one only in what is alike to the test."""
    firsts: dict[str, str] = {}
    for name, arguments in places.items():
        firsts.setdefault(repr(sorted(item for item in arguments.items() if item[0] not in alike)), name)
    return {name: places[name] for name in firsts.values()}


def _engine(arguments: Mapping[str, Any]) -> Engine:
    try:
        return find_engine(SandboxSpec(engine=arguments["engine"]))
    except InvalidOptions as error:
        raise pytest.UsageError(str(error)) from None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop what can run nowhere, and bound the time of the rest."""
    nowhere = [item for item in items if isinstance(item, pytest.Function) and _is_nowhere(item)]
    if nowhere:
        config.hook.pytest_deselected(items=nowhere)
        items[:] = [item for item in items if item not in nowhere]
    if config.pluginmanager.has_plugin("timeout") and not config.getini("timeout"):
        for item in items:
            item.add_marker(pytest.mark.timeout(_SECONDS))


def _is_nowhere(item: pytest.Function) -> bool:
    return hasattr(item, "callspec") and item.callspec.params.get("place") == _NOWHERE


@pytest.fixture(scope="module")
def place(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Where the test runs: the arguments of a `Sandbox`."""
    return dict(request.param)


@pytest.fixture(scope="module")
def wish(place: dict[str, Any]) -> dict[str, Any]:
    """The same, once the engine has answered: one that was asked for and is missing is a failure."""
    probe = _engine(place).probe()
    assert probe.available, f"{place}: {probe.detail}"
    return place


@pytest.fixture(scope="module")
def shared(wish: dict[str, Any]) -> Iterator[Sandbox]:
    """A sandbox for tests that leave it as they found it."""
    with Sandbox(**wish) as box:
        yield box


@pytest.fixture(scope="module")
def kind(shared: Sandbox) -> str:
    """The kind of the session's shell: bash, zsh, or sh for any other."""
    shell = shared.status()["shell"]
    return str(shell) if shell in {"bash", "zsh"} else "sh"


@pytest.fixture(scope="module")
def bash(kind: str) -> bool:
    """Whether the session's shell is bash."""
    return kind == "bash"


@pytest.fixture
def box(wish: dict[str, Any]) -> Iterator[Sandbox]:
    """A sandbox of the test's own."""
    with Sandbox(**wish) as own:
        yield own
