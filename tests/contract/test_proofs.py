"""Samples of the proofs; `python -m tests.differential`, `tests.soak` and `tests.faults` do more."""

from __future__ import annotations

from differential import compare
from faults import run
from soak import soak

from sandbox_magic import Sandbox

PROGRAMS = {"bash": "bash", "zsh": "zsh"}


def test_random_scripts_do_what_they_do_in_a_plain_shell(shared: Sandbox, kind: str) -> None:
    report = compare(shared, range(25), PROGRAMS.get(kind, "sh"))
    assert not report.unexplained, str(report)
    assert report.counts["the same"] > 12, str(report)


def test_whatever_happens_to_the_stream_is_survived_and_said(shared: Sandbox, kind: str) -> None:
    machine = shared._machine
    assert machine is not None
    report = run(machine, range(6), PROGRAMS.get(kind, "sh"))
    assert not report.wrong, str(report)
    assert report.lost, "nothing was cut"


def test_200_mixed_cells_do_what_they_must_and_nothing_grows(box: Sandbox) -> None:
    report = soak(box, 200, samples=4)
    assert not report.growth(), str(report)
