"""Each way to end, at least once; `python -m tests.left_behind` does each at each engine, twenty times."""

from __future__ import annotations

import pytest
import scenarios
from scenarios import ALL, EVERYWHERE, Scenario

# With Docker these are in tests/notebook/test_kernel_life.py; with Podman a kernel that ends by itself costs most.
ELSEWHERE = {(scenario, "docker") for scenario in EVERYWHERE} - {(scenarios.sigkill_between_create_and_start, "docker")}
DEAR = {
    (scenario, "podman")
    for scenario in (scenarios.normal_end, scenarios.restart, scenarios.sigterm, scenarios.fork_whose_child_ends)
}


@pytest.mark.parametrize(
    ("scenario", "engine"),
    [pytest.param(*each, id=f"{each[0].__name__}-{each[1]}") for each in ALL if each not in ELSEWHERE | DEAR],
)
def test_nothing_is_left_behind(scenario: Scenario, engine: str) -> None:
    assert scenario(engine) == []
