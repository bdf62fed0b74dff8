"""The sweep removes what carries our label and has a provably dead owner, and nothing else; it says why."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from sandbox_magic.engines import find_engine, traces
from sandbox_magic.engines.base import LABEL, Engine, Owner
from sandbox_magic.engines.docker import DockerEngine
from sandbox_magic.spec import SandboxSpec

MACHINE, BOOT, NAMESPACE = Owner.me().host.split("/")
OWNERS = {
    "reused": replace(Owner.me(), started="1"),
    "rebooted": Owner(f"{MACHINE}/an-earlier-boot/pid:[1]", 1, "1"),
    "live": Owner.me(),
    "elsewhere": Owner(f"another-machine/{BOOT}/{NAMESPACE}", 999_999_999, "1"),
    "contained": Owner(f"{MACHINE}/{BOOT}/pid:[1]", 999_999_999, "1"),
    "unlabelled": Owner("", 0, ""),
}
FORGED = {f"{LABEL}.owner.pid": "²", f"{LABEL}.owner.host": Owner.me().host}  # an image's label is one of what it makes
KEPT = {
    "live": f"its owner, process {os.getpid()}, lives",
    "elsewhere": "its owner is on another machine",
    "contained": "its owner, process 999999999, is in another container, where it cannot be looked for",
    "unlabelled": "nobody is named as its owner",
    "forged": "nobody is named as its owner",
}


def make(engine: Engine, labels: dict[str, str]) -> str:
    """Make a sandbox that does not run, with these labels."""
    if isinstance(engine, DockerEngine):
        return str(engine._connect().api.create_container("busybox:latest", ["true"], labels=labels)["Id"])
    trace = traces.Trace.make(os.getuid())
    trace.record(labels=labels)
    return trace.ident


@pytest.fixture(params=["docker", "podman", "bubblewrap"])
def engine(request: pytest.FixtureRequest) -> Engine:
    engine = find_engine(SandboxSpec(engine=request.param))
    engine.connect()
    return engine


@pytest.fixture
def made(engine: Engine) -> Iterator[dict[str, str]]:
    """The ids of sandboxes, one for each owner."""
    labels = {name: owner.labels() for name, owner in OWNERS.items()} | {"forged": FORGED}
    made = {name: make(engine, {LABEL: "1"} | one) for name, one in labels.items()}
    yield made
    for ident in made.values():
        engine.remove(ident)


def test_it_removes_the_provably_dead_and_says_why_it_left_the_rest(engine: Engine, made: dict[str, str]) -> None:
    foreign = (
        make(engine, {f"{LABEL}-of-others": "1"} | OWNERS["reused"].labels()) if engine.name != "bubblewrap" else ""
    )
    try:
        done = engine.sweep()
        assert {made["reused"], made["rebooted"]} <= set(done.removed)
        left = dict(done.left)
        assert {name: left.get(ident) for name, ident in made.items() if name in KEPT} == KEPT
        assert set(made.values()) & {one.id for one in engine.found()} == {made[name] for name in KEPT}
        assert foreign not in (*done.removed, *left)
        if isinstance(engine, DockerEngine):
            engine._connect().api.inspect_container(foreign)
    finally:
        if foreign:
            engine.remove(foreign)


def test_a_boot_proves_nothing_where_other_machines_come_too(made: dict[str, str], engine: Engine) -> None:
    """A copy of this machine has its id."""
    owner = OWNERS["rebooted"]
    assert owner.doubt() == ""
    assert "another machine, or on this one" in owner.doubt(far=True)
    assert engine.far is False


HIDDEN = """
import sys
from dataclasses import replace
from sandbox_magic.engines.base import Owner
pid, started = int(sys.argv[1]), sys.argv[2]
owner = replace(Owner.me(), pid=pid, started=started)
print(owner.doubt() or "dead", "|", replace(owner, pid=999_999_999).doubt() or "dead")
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can hide the processes of others")
def test_processes_that_are_hidden_from_us_are_not_dead() -> None:
    """With hidepid=2 another user's process is not in /proc."""
    me = Owner.me()
    command = "mount -t proc -o hidepid=2 proc /proc && exec setpriv --reuid=65534 --regid=65534 --clear-groups "
    program = [sys.executable, "-c", HIDDEN, str(me.pid), me.started]
    told = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f'{command} "$@"', "sh", *program],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert told.stdout == f"its owner, process {me.pid}, lives | dead\n", told
