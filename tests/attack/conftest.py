"""Attacks from inside real sandboxes, and on what of us reads and shows their bytes.

One test is one attempt, marked ``attack("group", "what is tried")``; ``bounded=True`` says that it does what it can and
is kept small, rather than refused. A passed test is an attempt that failed.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from canaries import Canary, planted
from tries import WHERE, Where

from sandbox_magic import Sandbox, SandboxSpec
from sandbox_magic.engines import find_engine
from sandbox_magic.testing.host import until


@pytest.fixture(scope="session")
def where(request: pytest.FixtureRequest) -> Where:
    """The engine and the profile that are attacked; one that was asked for and is missing is a failure."""
    wanted: Where = request.param
    probe = find_engine(SandboxSpec(engine=wanted.engine)).probe()
    assert probe.available, f"{wanted}: {probe.detail}"
    return wanted


@pytest.fixture(scope="session")
def canary() -> Iterator[Canary]:
    """What of this machine no sandbox may see; it is there before a sandbox starts."""
    with planted() as found:
        yield found


@pytest.fixture(scope="session")
def inside(where: Where, canary: Canary) -> Iterator[Sandbox]:
    """The sandbox of all attempts that leave it alive."""
    with Sandbox(**where.wish) as box:
        box.run("true", check=True)
        yield box


@pytest.fixture(scope="session")
def neighbour(where: Where) -> Iterator[Sandbox]:
    """Another sandbox on the same engine, with something in it to be found."""
    with Sandbox(engine=where.engine) as box:
        for folder in ("/tmp", "/var/tmp", "/work", "/dev/shm", "/run"):
            box.run(f"echo neighbours >{folder}/neighbours 2>/dev/null")
        box.run("(exec -a neighbours-process sleep 3600) >/dev/null 2>&1 &", check=True)
        commands = "cat /proc/[0-9]*/cmdline 2>/dev/null"
        until("it does not run", lambda: "neighbours-process" in box.run(commands).stdout)
        yield box


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Make all attempts at one place before the next one's sandbox is started."""
    slots = [index for index, item in enumerate(items) if isinstance(_where(item), Where)]
    ordered = sorted((items[index] for index in slots), key=lambda item: WHERE.index(_where(item)))
    for index, item in zip(slots, ordered, strict=True):
        items[index] = item


def _where(item: pytest.Item) -> Where | None:
    return (
        item.callspec.params.get("where") if isinstance(item, pytest.Function) and hasattr(item, "callspec") else None
    )
