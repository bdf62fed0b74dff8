"""Which engine a wish gets, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox_magic import EngineError, EngineUnavailable, InvalidOptions, Sandbox, SandboxSpec
from sandbox_magic.engines import find_engine, sweep_report
from sandbox_magic.engines.base import (
    IMAGES,
    LEASE,
    NETWORK_SWITCH,
    RUNTIMES,
    Engine,
    Found,
    Machine,
    Probe,
    Progress,
    silent,
)


class Plain(Engine):
    """An engine of another package: neither images nor a network."""

    name = "plain"

    def connect(self) -> None: ...

    def probe(self) -> Probe:
        return Probe(self.name, True)

    def start(self, spec: SandboxSpec, *, name: str = "", progress: Progress = silent) -> Machine:
        raise NotImplementedError

    def found(self) -> list[Found]:
        return []

    def remove(self, ident: str) -> None: ...


def test_an_engine_of_another_package_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "plain_engine-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plain-engine\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[sandbox_magic.engines]\nplain = {__name__}:Plain\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert isinstance(find_engine(SandboxSpec(engine="plain")), Plain)


def test_an_unknown_engine_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(InvalidOptions, match="'nope' is unknown; choose one of auto, docker"):
        find_engine(SandboxSpec(engine="nope"))


@pytest.mark.parametrize(
    "wish",
    [
        SandboxSpec(image="debian"),
        SandboxSpec(network=True),
        SandboxSpec(profile="open"),
        SandboxSpec(lease=5),
        SandboxSpec(runtime="runsc"),
    ],
)
def test_what_its_sandboxes_cannot_do_is_refused(wish: SandboxSpec) -> None:
    engine = Plain()
    engine.check(SandboxSpec())
    with pytest.raises(InvalidOptions, match="engine plain cannot do this"):
        engine.check(wish)
    engine.capabilities = frozenset({IMAGES, NETWORK_SWITCH, RUNTIMES, LEASE})
    engine.check(wish)


def test_an_engine_that_does_not_answer() -> None:
    with pytest.raises(EngineError, match="no Docker Engine answers") as caught:
        Sandbox(host="127.0.0.1", port=1).start()
    assert "tcp://127.0.0.1:1" in str(caught.value)


TWO_THREADS = """
import threading
from sandbox_magic.engines import endpoints

def meet(do):
    together.wait()
    try:
        do()
    except ImportError as error:
        print(error)

together = threading.Barrier(2)
first = lambda: list(endpoints.docker_places(None))
second = lambda: __import__("docker")
threads = [threading.Thread(target=meet, args=(do,)) for do in (first, second)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_a_cell_and_the_sweep_may_load_the_sdk_at_once() -> None:
    """Its modules import each other: entered at two places at the same time, one finds half of another."""
    environment = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}
    ended = subprocess.run(
        [sys.executable, "-c", TWO_THREADS], capture_output=True, text=True, timeout=60, check=True, env=environment
    )
    assert (ended.stdout, ended.stderr) == ("", "")


def test_another_address_in_the_environment_is_another_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was read once: a sandbox that began after the change was where the first one had been."""
    spec = SandboxSpec(engine="docker")
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    first = find_engine(spec)
    assert find_engine(spec) is first
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:2")
    assert find_engine(spec) is not first
    with pytest.raises(EngineUnavailable, match=r"tcp://127\.0\.0\.1:2"):
        find_engine(spec).connect()


def test_a_sweep_names_the_engines_that_do_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("DOCKER_HOST", "CONTAINER_HOST"):
        monkeypatch.setenv(variable, "tcp://127.0.0.1:1")
    lines = sweep_report()
    for name in ("docker", "podman"):
        (line,) = (line for line in lines if line.startswith(name))
        assert line.startswith(f"{name}: nothing was looked at: ") and "tcp://127.0.0.1:1" in line
        assert "\n" not in line and "apt-get" not in line
    assert any(line.startswith("bubblewrap: ") and "nothing was looked at" not in line for line in lines)


def test_a_start_that_failed_is_not_reported_as_done() -> None:
    said: list[str] = []
    with pytest.raises(InvalidOptions):
        Sandbox(engine="no-such-engine", on_progress=said.append).start()
    assert said and "" not in said
