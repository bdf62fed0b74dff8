"""For all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["sandbox_magic.testing.plugin", "table"]

# A busy machine is no bug: pytest-timeout bounds the tests as a whole.
settings.register_profile("project", deadline=None)
settings.load_profile("project")

HERE = Path(__file__).parent
# Real engines, kernels and browsers on a machine that others use too: docs/decisions/0026.
RERUN = [HERE / name for name in ("attack", "browser", "containers", "contract", "left_behind", "notebook", "remote")]


# What ends daemons, or sweeps what others have left: one after the other. It takes longest, so it begins first.
FIRST = [HERE / name for name in ("browser", "containers", "left_behind", "notebook", "remote")]
ALONE = [*FIRST, HERE / "attack" / "test_front_end.py"]


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in its own
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if _is_in(item, RERUN):
            item.add_marker(
                pytest.mark.flaky(reruns=2, rerun_except="Breach")
            )  # an attack that succeeds once is enough
        if config.pluginmanager.has_plugin("xdist"):
            item.add_marker(pytest.mark.xdist_group(_group(item)))
    items.sort(key=lambda item: not _is_in(item, FIRST))


def _is_in(item: pytest.Item, paths: list[Path]) -> bool:
    return any(path == item.path or path in item.path.parents for path in paths)


def _group(item: pytest.Item) -> str:
    """Return the name of the tests that one process runs, and so share their fixtures: docs/decisions/0074."""
    if _is_in(item, ALONE):
        return "alone"
    given = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    if "where" in given:  # its sandboxes are shared by the files
        return f"{given['where']}"
    return f"{item.path.stem} {'-'.join(given['place'].values())}" if "place" in given else item.path.stem
