"""The contract looks for traces by the sandbox's id; here it is shown that it finds them while the sandbox lives."""

from __future__ import annotations

import pytest

from sandbox_magic import Sandbox
from sandbox_magic.testing.host import left


@pytest.mark.alike("shell", "image")
def test_a_sandbox_that_lives_is_seen(shared: Sandbox) -> None:
    assert shared._machine is not None
    seen = left([shared._machine.id])
    assert [name for name in seen if name.startswith("/run/")]
    assert [name for name in seen if " " in name]  # a command line
    if str(shared.status().get("limits by", "cgroup")).startswith("cgroup"):
        assert [name for name in seen if name.startswith("/sys/fs/cgroup/")]
