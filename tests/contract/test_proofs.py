"""Samples of the proofs; `python -m tests.differential`, `tests.soak` and `tests.faults` do more, also elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from differential import compare
from faults import run
from soak import soak

from sandbox_magic import Sandbox


@pytest.fixture(scope="module", params=["bash", "sh"])
def embedded(request: pytest.FixtureRequest) -> Iterator[tuple[Sandbox, str]]:
    with Sandbox(engine="bubblewrap", shell=request.param) as own:
        yield own, request.param


def test_random_scripts_do_what_they_do_in_a_plain_shell(embedded: tuple[Sandbox, str]) -> None:
    box, shell = embedded
    report = compare(box, range(25), shell)
    assert not report.unexplained, str(report)
    assert report.counts["the same"] > 12, str(report)


def test_whatever_happens_to_the_stream_is_survived_and_said(embedded: tuple[Sandbox, str]) -> None:
    box, shell = embedded
    assert box._machine is not None
    report = run(box._machine, range(6), shell)
    assert not report.wrong, str(report)
    assert report.lost, "nothing was cut"


def test_200_mixed_cells_do_what_they_must_and_nothing_grows(box: Sandbox) -> None:
    report = soak(box, 200, samples=4)
    assert not report.growth(), str(report)
