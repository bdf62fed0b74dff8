"""Each way to end, at least once; `python -m tests.left_behind` does each at each engine, twenty times."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import scenarios
from scenarios import ALL, EVERYWHERE, Scenario

pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # the SDK leaves those that fail


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    yield
    gc.collect()  # while such warnings are ignored


# With Docker these are in tests/notebook/test_kernel_life.py.
ELSEWHERE = {(scenario, "docker") for scenario in EVERYWHERE} - {(scenarios.sigkill_between_create_and_start, "docker")}
# With Podman, whose kernels take longest, those whose end is the engine's to notice; none that waits for a lease.
OF_PODMAN = {
    (scenarios.sigkill_in_a_cell, "podman"),
    (scenarios.sigkill_between_create_and_start, "podman"),
    (scenarios.podmans_service_killed, "podman"),
}
DEAR = {each for each in ALL if each[1] == "podman"} - OF_PODMAN


@pytest.mark.parametrize(
    ("scenario", "engine"),
    [pytest.param(*each, id=f"{each[0].__name__}-{each[1]}") for each in ALL if each not in ELSEWHERE | DEAR],
)
def test_nothing_is_left_behind(scenario: Scenario, engine: str) -> None:
    assert scenario(engine) == []
