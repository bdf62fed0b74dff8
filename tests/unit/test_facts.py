"""What a sandbox says of itself: whatever answers in place of the control shell is the sandbox, too."""

from __future__ import annotations

from typing import cast

import pytest

from sandbox_magic.control import ControlShell
from sandbox_magic.facts import inside


class Liar:
    def __init__(self, said: str) -> None:
        self.said = said

    def call(self, _command: str) -> str:
        return self.said


@pytest.mark.parametrize(
    "said", ["", "Uid:", "Uid\nkernel:\ninterface:\n", ":::\n\x1b]0;evil\x07: 1", "Uid:\t\t\n" * 9]
)
def test_a_lie_is_no_failure(said: str) -> None:
    facts = inside(cast("ControlShell", Liar(said)))
    assert set(facts) <= {"user id", "kernel", "network interfaces"}
    assert all(str(value).isprintable() for value in facts.values())


def test_the_truth_is_told() -> None:
    said = "Uid:\t10001\t10001\nCapEff:\t00cb\nkernel: Linux version 6.1.0 (x)\ninterface: lo\ninterface: eth0\n"
    facts = inside(cast("ControlShell", Liar(said)))
    assert facts == {
        "user id": "10001",
        "capabilities": "00cb",
        "kernel": "6.1.0",
        "network interfaces": "lo, eth0",
    }
