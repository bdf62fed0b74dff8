"""gVisor as a runtime of a Docker Engine."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from machines import IMAGE

from sandbox_magic import EngineError, InvalidOptions, LimitNotEnforced, Sandbox, SandboxSpec, pulse
from sandbox_magic.engines import find_engine
from sandbox_magic.proof import ENFORCED, NOT_ENFORCED, prove


def test_sealed_takes_it_and_it_is_really_there(gvisor: str, tmp_path: Path) -> None:
    with Sandbox(IMAGE, docker_host=gvisor, profile="sealed") as box:
        facts = box.status()
        assert facts["runtime"] == "runsc"
        assert str(facts["kernel"]).endswith("(gVisor)")
        assert facts["limits by"] == "the engine"
        assert "Starting gVisor" in box.run("dmesg").stdout
        assert box.run("id -u; touch /x || echo refused; echo kept >f").stdout == "10001\nrefused\n"
        box.get("f", tmp_path / "f")
        assert (tmp_path / "f").read_text() == "kept\n"
        with pytest.raises(InvalidOptions, match="gVisor"):
            box.run("true", network=True)


def test_another_runtime_can_be_asked_for(gvisor: str) -> None:
    with Sandbox(IMAGE, docker_host=gvisor, profile="sealed", runtime="runc") as box:
        facts = box.status()
        assert facts["runtime"] == "runc"
        assert "gVisor" not in str(facts["kernel"])
    with Sandbox(IMAGE, docker_host=gvisor) as box:
        assert box.status()["runtime"] == "runc"


def test_limits_that_it_drops_are_said(gvisor: str) -> None:
    with pytest.raises(LimitNotEnforced, match="the runtime drops them"):
        Sandbox(IMAGE, docker_host=gvisor, runtime="careless").start()
    with Sandbox(IMAGE, docker_host=gvisor, runtime="careless", allow_degraded=True) as box:
        assert "the runtime drops them" in box.run("true").notes[0]
        facts = box.status()
        assert str(facts["kernel"]).endswith("(gVisor)")
        assert facts["limits by"] == "nothing: the runtime drops them"


BEYOND = {
    "memory": ({"memory": 200 << 20}, "dd if=/dev/zero of=/dev/null bs=500M count=100"),
    "processes": ({"pids": 300}, "i=0; while [ $i -lt 400 ]; do sleep 90 & i=$((i + 1)); done"),
}


@pytest.mark.parametrize("limit", BEYOND)
def test_whoever_goes_beyond_a_limit_ends_the_sandbox(gvisor: str, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernel is what the host's control group ends; the host is safe, and what comes next runs in a new sandbox."""
    monkeypatch.setattr(pulse, "SILENT_SECONDS", 2.0)  # the engine may leave the stream open
    wish, code = BEYOND[limit]
    with Sandbox(IMAGE, docker_host=gvisor, runtime="bounded", **wish) as box:
        assert box.run("dd if=/dev/zero of=/dev/null bs=50M count=2; sleep 0.1 & wait; echo below").stdout == "below\n"
        with suppress(EngineError):
            box.run(f"{code}; echo survived", timeout=100)
        assert box.last is not None and box.last.exit_code is None and "survived" not in box.last.stdout
        assert box.run("echo next").stdout == "next\n"


def test_the_doctor_is_not_deceived_by_what_a_runtime_seems_to_keep(gvisor: str) -> None:
    engine = find_engine(SandboxSpec(docker_host=gvisor))
    engine.connect()
    memory, processes, _ = prove(engine, image=IMAGE, runtime="runsc")  # which hides that it drops them
    assert memory.verdict == NOT_ENFORCED, memory.why
    assert processes.verdict == NOT_ENFORCED, processes.why
    assert engine.found() == []


def test_the_doctor_proves_what_ends_the_sandbox(gvisor: str) -> None:
    engine = find_engine(SandboxSpec(docker_host=gvisor))
    engine.connect()
    memory, processes, _ = prove(engine, image=IMAGE, runtime="bounded")
    assert memory.verdict == ENFORCED and "killed, and the sandbox with it" in memory.why
    assert processes.verdict == ENFORCED, processes.why
    assert engine.found() == []


def test_an_unknown_runtime_is_refused(gvisor: str) -> None:
    with pytest.raises(
        InvalidOptions, match=r"'nope' is not registered with this engine, which has: .*careless, .*runc"
    ):
        Sandbox(IMAGE, docker_host=gvisor, runtime="nope").start()


def test_podman_has_no_choice() -> None:
    with pytest.raises(InvalidOptions, match=r"engine podman cannot do this. runtime 'runsc'"):
        Sandbox(engine="podman", runtime="runsc").start()
