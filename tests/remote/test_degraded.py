"""An engine that takes a wish for limits and drops it: a dockerd where two controllers are not mounted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import docker
import pytest
from machines import IMAGE, dockerd, provide

from sandbox_magic import LimitNotEnforced, Sandbox
from sandbox_magic.jupyter.control import Control
from sandbox_magic.manager import SandboxManager

DROPPED = ("memory", "pids")


@pytest.fixture(scope="module")
def careless(folder: Path) -> Iterator[str]:
    if not Path("/sys/fs/cgroup/pids").is_dir():
        pytest.skip("control groups of version 2 are all mounted or none")
    home = folder / "careless"
    home.mkdir()
    with dockerd(home, without=DROPPED) as port:
        client = docker.DockerClient(base_url=f"tcp://127.0.0.1:{port}", version="1.40", timeout=30)
        provide(client, home)
        client.close()
        yield f"tcp://127.0.0.1:{port}"


@pytest.mark.parametrize("profile", ["sealed", "standard", "open"])
def test_nothing_is_run_without_a_limit_and_nothing_stays(careless: str, profile: str) -> None:
    with pytest.raises(LimitNotEnforced) as caught:
        Sandbox(IMAGE, docker_host=careless, profile=profile).start()
    assert [limit.split(" ")[0] for limit in caught.value.limits] == ["memory", "processes"]
    assert "--allow-degraded" in str(caught.value)
    client = docker.DockerClient(base_url=careless, version="1.40", timeout=30)
    try:
        assert client.api.containers(all=True) == []
    finally:
        client.close()


def test_whoever_goes_on_is_told(careless: str, capsys: pytest.CaptureFixture[str]) -> None:
    manager = SandboxManager()
    try:
        box = manager.get("default", {"image": IMAGE, "docker_host": careless, "allow_degraded": True}, {})
        first = box.run("echo ran")
        assert first.stdout == "ran\n"
        assert [note for note in first.notes if "not enforced: memory (no limit instead of" in note]
        assert box.run("true").notes == ()
        Control(None, manager, SimpleNamespace()).run("status")
        (row,) = [line for line in capsys.readouterr().out.splitlines() if "not enforced" in line]
        assert row.startswith("\x1b[31m  not enforced") and row.endswith("\x1b[0m")
        assert "memory (no limit" in row and "processes (no limit" in row
    finally:
        manager.close_all()
