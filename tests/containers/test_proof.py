"""The limits of each engine, tried for real: what the doctor says of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sandbox_magic.engines import find_engine
from sandbox_magic.engines.base import Engine, Machine, Progress, silent
from sandbox_magic.engines.bubblewrap import BubblewrapEngine
from sandbox_magic.engines.docker import DockerEngine
from sandbox_magic.proof import ENFORCED, NOT_ENFORCED, UNKNOWN, prove
from sandbox_magic.spec import SandboxSpec


def verdicts(engine: Engine) -> dict[str, str]:
    probe = engine.probe()
    assert probe.available, probe.detail
    return {limit.name: limit.verdict for limit in prove(engine)}


def names(engine: Engine) -> list[str]:
    return [found.labels.get("sandbox-magic.name", "") for found in engine.found()]


@pytest.mark.parametrize("name", ["docker", "podman", "bubblewrap"])
def test_a_limit_that_holds_is_proved_and_nothing_is_left(name: str) -> None:
    engine = find_engine(SandboxSpec(engine=name))
    found = verdicts(engine)
    assert (found["memory"], found["processes"]) == (ENFORCED, ENFORCED)
    assert "doctor" not in names(engine)


def test_a_limit_that_does_not_hold_is_found_out() -> None:
    class Forgetful(BubblewrapEngine):
        """Takes the wish for limits and gives the profile's, which are far larger."""

        def start(self, spec: SandboxSpec, *, name: str = "", progress: Progress = silent) -> Machine:  # type: ignore[override]
            return super().start(replace(spec, memory=None, pids=None), name=name, progress=progress)

    found = verdicts(Forgetful())
    assert (found["memory"], found["processes"]) == (NOT_ENFORCED, NOT_ENFORCED)


def test_without_an_image_nothing_is_known_and_nothing_is_fetched() -> None:
    class Bare(DockerEngine):
        """Has no image of the name."""

        def missing(self, spec: SandboxSpec) -> str:
            return super().missing(replace(spec, image="nothing.invalid/no-such-image:1"))

        def start(self, spec: SandboxSpec, *, name: str = "", progress: Progress = silent) -> Machine:  # type: ignore[override]
            raise AssertionError("a start would fetch the image")

    limits = prove(Bare())
    assert {limit.verdict for limit in limits} == {UNKNOWN}
    assert all("no image nothing.invalid/no-such-image:1 here" in limit.why for limit in limits)


def test_a_trial_that_fails_is_no_verdict() -> None:
    class Broken(BubblewrapEngine):
        """Raises what no engine of ours does."""

        def start(self, spec: SandboxSpec, *, name: str = "", progress: Progress = silent) -> Machine:  # type: ignore[override]
            raise RuntimeError("out of order")

    limits = prove(Broken())[:2]
    assert {(limit.verdict, limit.why) for limit in limits} == {(UNKNOWN, "the trial failed: out of order")}
