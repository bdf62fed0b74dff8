"""Whether a silent cell can still be heard: who is asked, and what ends the cell."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pytest

from sandbox_magic import EngineError, pulse
from sandbox_magic.engines.base import Machine
from sandbox_magic.pulse import Pulse
from sandbox_magic.testing.host import until
from sandbox_magic.transport import Transport


@dataclass
class Silent(Machine):
    """A sandbox that says nothing."""

    lives: Callable[[], bool]
    problem: EngineError | None = None
    id = "silent"

    def open(self, argv: Sequence[str], *, user: str | None = None, env: Mapping[str, str] | None = None) -> Transport:
        raise NotImplementedError

    def describe(self) -> dict[str, object]:
        return {}

    def alive(self) -> bool:
        return self.lives()

    def trouble(self) -> EngineError | None:
        return self.problem

    def close(self) -> None:
        pass


def asked(machine: Machine, times: int) -> EngineError | None:
    woken = threading.Event()
    one = Pulse(machine, woken.set)
    for _ in range(times):
        one.wait(heard=False)
        until("it is still being asked", lambda: not one._asking)
    return one.trouble if not one.trouble or woken.wait(5) else None


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "SILENT_SECONDS", 0.0)


def test_who_lives_and_has_no_trouble_may_be_silent() -> None:
    assert asked(Silent(lambda: True), 5) is None


def test_trouble_counts_when_it_is_there_twice() -> None:
    machine = Silent(lambda: True, EngineError("paused"))
    assert asked(machine, 1) is None
    assert asked(machine, 2) is machine.problem


def test_a_sandbox_that_has_ended_without_an_end_of_its_stream_ends_the_cell() -> None:
    """Seen with gVisor whose kernel was killed by the memory limit: the stream stayed open."""
    assert "has ended" in str(asked(Silent(lambda: False), 2))
    answers = iter([False, True, False])
    assert asked(Silent(lambda: next(answers)), 3) is None
