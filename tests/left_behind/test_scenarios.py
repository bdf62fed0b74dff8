"""Each way to end, once; `python -m tests.left_behind` does it twenty times."""

from __future__ import annotations

import pytest
from scenarios import ALL, Scenario


@pytest.mark.parametrize(
    ("scenario", "place"), [pytest.param(*each, id=f"{each[0].__name__}-{each[1]}") for each in ALL]
)
def test_nothing_is_left_behind(scenario: Scenario, place: str) -> None:
    assert scenario(place) == []
