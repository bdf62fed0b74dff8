"""The contract of an engine, as tests that anybody can run on their own.

    pip install 'sandbox-magic[testing]'
    pytest --pyargs sandbox_magic.testing --engine NAME

The engine is found as users find it: built in, or by the entry point group ``sandbox_magic.engines``. It gets one
*place*, ``Sandbox(engine=NAME)``. More places, such as other images and shells, come from a hook in a ``conftest.py``:

    def pytest_sandbox_places():
        return {"mine-bash": {"engine": "mine"}, "mine-sh": {"engine": "mine", "shell": "sh"}}

What an engine cannot do it says by its `capabilities`; tests that need more are not run there.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest


def protocol_cases() -> list[dict[str, Any]]:
    """Return the cases of the protocol: cells of one session, and what each must do."""
    places = [files(__name__).joinpath(f"{name}-cases.jsonl") for name in ("protocol", "more")]
    return [json.loads(line) for place in places for line in place.read_text(encoding="utf-8").split("\n") if line]


def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    """Load the plugin if these tests are asked for: nobody else's pytest gets our options and fixtures."""
    if any(__name__ in arg.replace("/", ".") for arg in args):
        early_config.pluginmanager.import_plugin(f"{__name__}.plugin")
