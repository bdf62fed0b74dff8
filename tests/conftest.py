"""For all tests."""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

pytest_plugins = ["sandbox_magic.testing.plugin", "table"]

# A busy machine is no bug: pytest-timeout bounds the tests as a whole.
settings.register_profile("project", deadline=None)
settings.load_profile("project")

# What ends daemons, or sweeps what others have left: one after the other. It takes longest, so it begins first.
ALONE = {f"tests/{name}" for name in ("browser", "containers", "left_behind", "notebook", "remote")}

# Tests count processes, and do not share their two processors: those of the spare ask for it.
os.environ["SANDBOX_MAGIC_SPARE"] = "0"
# Real engines, kernels and browsers on a machine that others use too: docs/decisions/0026.
RERUN = {"tests/attack", "tests/contract", *ALONE}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _folder(item.nodeid) in RERUN:
            item.add_marker(
                pytest.mark.flaky(reruns=2, rerun_except="Breach")
            )  # an attack that succeeds once is enough
    items.sort(key=lambda item: _folder(item.nodeid) not in ALONE)


def _folder(nodeid: str) -> str:
    return nodeid.partition("::")[0].rpartition("/")[0]


class Groups(LoadScopeScheduling):
    """Gives a process all tests of a group, which share sandboxes or disturb each other: docs/decisions/0074."""

    def _split_scope(self, nodeid: str) -> str:
        path, _, name = nodeid.partition("::")
        if _folder(nodeid) in ALONE or path.endswith("test_front_end.py"):
            return "alone"
        place = re.search(r"(docker|podman|bubblewrap)-\w+", name)
        if place is None:
            return path
        # Attacks share a sandbox in all files; the contract has one for each file.
        return place[0] if "/attack/" in path else f"{path} {place[0]}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Groups:
    return Groups(config, log)
