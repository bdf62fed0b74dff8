"""For all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["sandbox_magic.testing.plugin"]

# A busy machine is no bug: pytest-timeout bounds the tests as a whole.
settings.register_profile("project", deadline=None)
settings.load_profile("project")

# Tests count processes, and do not share their two processors: those of the spare ask for it.
os.environ["SANDBOX_MAGIC_SPARE"] = "0"

HERE = Path(__file__).parent
# Real engines, kernels and browsers on a machine that others use too: docs/decisions/0026.
RERUN = [HERE / name for name in ("attack", "browser", "containers", "contract", "left_behind", "notebook", "remote")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(folder in item.path.parents for folder in RERUN):
            item.add_marker(
                pytest.mark.flaky(reruns=2, rerun_except="Breach")
            )  # an attack that succeeds once is enough
