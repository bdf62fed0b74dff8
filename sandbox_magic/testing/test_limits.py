"""What is promised of a cell that runs into a limit: its true exit code, the limit's name, a session that goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sandbox_magic import Sandbox
from sandbox_magic.testing.host import until

GROW = "x=x; while :; do x=$x$x$x$x; done"
SWARM = "i=0; while [ $i -lt 100 ]; do sleep 3000 & i=$((i+1)); done"
END_SWARM = 'for f in /proc/[0-9]*; do read c <$f/comm; [ "$c" != sleep ] || kill -9 "${f##*/}"; done 2>/dev/null'


@pytest.fixture(scope="module")
def small(wish: dict[str, Any]) -> Iterator[Sandbox]:
    """A sandbox with little of everything."""
    with Sandbox(**wish, memory="160m", pids=60) as own:
        yield own


def test_a_child_that_takes_too_much_memory(small: Sandbox) -> None:
    small.run("cd /tmp; kept=alive")
    result = small.run(f"sh -c '{GROW}'")
    assert result.exit_code == 137
    (limit,) = result.limits
    assert limit.startswith("the memory limit (160m) was reached")
    assert limit in result.notes
    assert small.run("echo $kept; pwd").stdout == "alive\n/tmp\n"


def test_a_shell_that_takes_too_much_memory(small: Sandbox) -> None:
    small.run("cd /tmp; export kept=alive")
    result = small.run(GROW)
    assert (result.exit_code, result.shell_ended) == (137, True)
    assert result.limits[0].startswith("the memory limit (160m) was reached")
    after = small.run("echo $kept; pwd; false")
    assert (after.stdout, after.limits) == ("alive\n/tmp\n", ())


def test_no_free_process(small: Sandbox) -> None:
    small.run("kept=alive")
    result = small.run(f"sh -c '{SWARM}'")
    assert result.exit_code not in (0, None)
    assert result.limits == ("the limit of 60 processes was reached",)
    assert small.run("echo $kept").stdout == "alive\n"
    small.run(END_SWARM)
    until("processes can be made again", lambda: small.run("sh -c 'echo free'").stdout == "free\n")
    assert small.run("echo $kept").stdout == "alive\n"


def test_a_full_folder(small: Sandbox) -> None:
    small.run("kept=alive")
    result = small.run("head -c 100000000 /dev/zero >/dev/shm/big")
    assert result.exit_code not in (0, None)
    assert result.limits == ("a folder of the sandbox is full: /dev/shm 40m",)  # not what earlier cells ran into
    small.run("rm /dev/shm/big")
    assert small.run("echo $kept").stdout == "alive\n"
