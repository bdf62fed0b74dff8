"""An engine of another package runs the contract, as its author would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENGINE = """
from sandbox_magic.engines.base import Probe
from sandbox_magic.engines.bubblewrap import BubblewrapEngine

class ThirdEngine(BubblewrapEngine):
    name = "third"

    def __init__(self):
        super().__init__()

class AbsentEngine(ThirdEngine):
    name = "absent"

    def probe(self):
        return Probe(self.name, False, detail="it is not here")
"""
PLACES = """
def pytest_sandbox_places():
    return {"third-sh": {"engine": "third", "shell": "sh"}, "other": {"engine": "absent"}}
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder in which the package is installed."""
    (tmp_path / "third_engine.py").write_text(ENGINE)
    info = tmp_path / "third_engine-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-engine\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[sandbox_magic.engines]\nthird = third_engine:ThirdEngine\nabsent = third_engine:AbsentEngine\n"
    )
    (tmp_path / "project").mkdir()
    return tmp_path


def contract(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "--pyargs", "sandbox_magic.testing", "-v", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, *arguments],
        cwd=package / "project",
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_it_gets_a_place_by_its_name(package: Path) -> None:
    done = contract(
        package, "--engine", "third", "-k", "test_check_and_failed or only-newlines or test_no_network_until_asked"
    )
    assert done.returncode == 0, done.stdout
    for name in ("test_check_and_failed[third]", "test_case[third-only-newlines]"):
        assert f"{name} PASSED" in done.stdout
    assert "2 passed" in done.stdout
    assert "test_no_network_until_asked" not in done.stdout  # it declares no such capability
    assert "skipped" not in done.stdout


def test_its_author_declares_more_places(package: Path) -> None:
    (package / "project" / "conftest.py").write_text(PLACES)
    done = contract(package, "--engine", "third", "-k", "test_check_and_failed")
    assert done.returncode == 0, done.stdout
    assert "test_check_and_failed[third-sh] PASSED" in done.stdout
    assert "1 passed" in done.stdout


def test_one_that_is_missing_fails(package: Path) -> None:
    done = contract(package, "--engine", "absent", "-k", "test_check_and_failed")
    assert done.returncode == 1
    assert "it is not here" in done.stdout
    assert "skipped" not in done.stdout


def test_one_that_nobody_knows_fails(package: Path) -> None:
    done = contract(package, "--engine", "nobodys")
    assert done.returncode not in (0, 5)
    assert "engine 'nobodys' is unknown" in done.stdout
