"""The command `sandbox-magic`, as a user runs it: what it says and its exit code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import nbformat
import pytest

from sandbox_magic import __version__
from sandbox_magic.engines.base import Owner
from sandbox_magic.engines.holes import possible

NO_DAEMON = {"DOCKER_HOST": "unix:///nonexistent/docker.sock", "CONTAINER_HOST": "unix:///nonexistent/podman.sock"}
NOWHERE = NO_DAEMON | {"SANDBOX_MAGIC_BWRAP": "/nonexistent/bwrap"}


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sandbox_magic", *arguments]
    return subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)


def write(path: Path, *sources: str) -> str:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    nbformat.write(notebook, path)
    return str(path)


def test_version() -> None:
    assert run("--version").stdout == f"sandbox-magic {__version__}\n"


def test_a_wrong_command_is_refused_with_exit_code_2() -> None:
    assert run("frobnicate").returncode == run().returncode == 2


def test_the_command_loads_neither_ipython_nor_the_demo_libraries() -> None:
    code = "import sys, sandbox_magic.cli; print([m for m in ('IPython', 'nbclient', 'docker') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_doctor_names_the_engine_that_works() -> None:
    told = run("doctor")
    assert told.returncode == 0
    assert "docker: works\n" in told.stdout and "  endpoint: " in told.stdout and "  version: " in told.stdout


def test_doctor_for_programs() -> None:
    told = run("doctor", "--json")
    facts = json.loads(told.stdout)
    assert told.returncode == 0 and facts["usable"] is True and facts["version"] == __version__
    found = {engine["name"]: engine for engine in facts["engines"]}
    assert list(found)[:3] == ["docker", "podman", "bubblewrap"]
    for engine in filter(lambda engine: engine["available"], found.values()):
        verdicts = {limit["name"]: limit["verdict"] for limit in engine["limits"] if not limit["runtime"]}
        assert (verdicts["memory"], verdicts["processes"]) == ("enforced", "enforced"), engine
        assert verdicts["processors"] == "unknown"
        assert all(limit["why"] for limit in engine["limits"])
        assert all(problem["what"] and problem["advice"] for problem in engine["problems"])
    docker_parts = found["docker"]["components"]
    assert docker_parts["Docker Engine"] == found["docker"]["version"]
    for hole in possible(docker_parts):
        assert any(f"may have {hole.names}: " in problem["what"] for problem in found["docker"]["problems"])


def test_doctor_can_be_quick() -> None:
    facts = json.loads(run("doctor", "--json", "--quick").stdout)
    limits = [limit for engine in facts["engines"] for limit in engine["limits"]]
    assert limits and {limit["verdict"] for limit in limits} == {"unknown"}


def test_doctor_says_why_nothing_works_and_what_to_do() -> None:
    told = run("doctor", **NOWHERE)
    assert told.returncode == 1
    assert (
        "docker: does not work" in told.stdout and NOWHERE["DOCKER_HOST"] in told.stdout and "Start it" in told.stdout
    )
    facts = json.loads(run("doctor", "--json", **NOWHERE).stdout)
    assert facts["usable"] is False and facts["engines"][0]["available"] is False
    assert facts["engines"][0]["limits"] == [], "nothing is claimed of an engine that does not work"


@pytest.fixture
def abandoned() -> Iterator[Any]:
    """A sandbox whose owner is dead: it has the process id of one that lives, and another start time."""
    client = docker.from_env()
    labels = {"sandbox-magic": "1", **replace(Owner.me(), started="1").labels()}
    container = client.containers.create("busybox:latest", "sh", labels=labels)
    yield container
    for left in client.containers.list(all=True, filters={"id": container.id}):
        left.remove(force=True)
    client.close()


def test_gc_removes_what_the_dead_left_and_only_that(abandoned: Any) -> None:
    living = abandoned.client.containers.create(
        "busybox:latest", "sh", labels={"sandbox-magic": "1", **Owner.me().labels()}
    )
    try:
        told = run("gc")
        assert told.returncode == 0 and f"docker: removed {abandoned.id[:12]}: its owner is dead\n" in told.stdout
        left = f"docker: left {living.id[:12]}: its owner, process {os.getpid()}, lives\n"
        assert left in told.stdout
        assert abandoned.client.containers.list(all=True, filters={"id": abandoned.id}) == []
        again = run("gc").stdout
        assert left in again and abandoned.id[:12] not in again
        living.reload()
    finally:
        living.remove(force=True)


def test_gc_without_an_engine_does_not_claim_that_nothing_is_left() -> None:
    told = run("gc", **NOWHERE)
    assert (told.returncode, told.stdout) == (1, "")
    assert "no Docker Engine answers" in told.stderr and "Traceback" not in told.stderr


def test_demo_of_a_failing_notebook_fails_and_leaves_what_ran(tmp_path: Path) -> None:
    notebook = write(tmp_path / "fails.ipynb", "1 + 1", "raise ValueError('no')", "print('too far')")
    told = run("demo", notebook, "--output", str(tmp_path / "made"))
    assert told.returncode == 1
    assert told.stderr == "sandbox-magic: fails.ipynb failed: ValueError: no\n"
    assert "too far" not in told.stdout.split("In [2]")[1].split("the executed notebook")[0]
    counts = [cell.execution_count for cell in nbformat.read(tmp_path / "made" / "fails.ipynb", as_version=4).cells]
    assert counts == [1, 2, None] and (tmp_path / "made" / "fails.html").is_file()


def test_the_demo_needs_no_daemon(tmp_path: Path) -> None:
    told = run("demo", "--output", str(tmp_path), **NO_DAEMON)
    assert (told.returncode, told.stderr) == (0, "")
    said = re.sub(r"\s+", " ", told.stdout)
    assert "no Docker and no Podman answers here, so this sandbox runs on bubblewrap" in said
    assert "this sandbox has no network to switch" in said, "what it cannot do is an error that says so"


def test_demo_says_what_is_missing(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent.ipynb")
    told = run("demo", absent)
    assert told.returncode == 1 and told.stderr.startswith(f"sandbox-magic: {absent} is not a notebook")
    told = run("demo", write(tmp_path / "any.ipynb", "1"), **NOWHERE)
    assert told.returncode == 1 and "no Docker Engine answers" in told.stderr and "In [1]" not in told.stdout
    code = "import sys; sys.modules['nbconvert'] = None; from sandbox_magic.cli import main; sys.exit(main(['demo']))"
    without = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert without.returncode == 1
    assert without.stderr == (
        "sandbox-magic: the demo needs nbconvert, which is not installed: pip install 'sandbox-magic[demo]'\n"
    )
