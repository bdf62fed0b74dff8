"""The notebooks of this repository: what is stored reads well, and the quickstart still does what is stored."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TELLS_OF_THE_MACHINE = re.compile(r"/home/|/Users/|/tmp/|/root/|\.venv|site-packages|Traceback")


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell: Any) -> list[str]:
    """Return what a reader sees below the cell, text by text."""
    texts = []
    for output in cell.outputs:
        if output.output_type == "stream":
            texts.append(output.text)
        elif output.output_type == "error":
            texts.append("\n".join(output.traceback))
        else:
            texts.append(output.data["text/plain"])
    return texts


def test_there_are_notebooks() -> None:
    assert {"quickstart", "convert-images"} <= {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_stored_is_one_whole_run(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        fails = any(output.output_type == "error" for output in cell.outputs)
        assert fails == ("raises-exception" in cell.metadata.get("tags", [])), cell.source
        assert set(cell.metadata) <= {"tags"}, "the time of a run says nothing to a reader"
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_stored_tells_nothing_of_the_machine_it_ran_on(path: Path) -> None:
    for cell in code_cells(read(path)):
        for text in shown(cell):
            assert not TELLS_OF_THE_MACHINE.search(text), text
            assert set(re.findall(r"https?://([^/\s]+)", cell.source + text)) <= {"example.com"}
            assert not re.search(r"\b\d{1,3}(\.\d{1,3}){3}\b", text), "an address"


def test_the_demo_runs_the_quickstart_as_it_is_stored(tmp_path: Path) -> None:
    began = time.monotonic()
    demo = subprocess.run(
        [sys.executable, "-m", "sandbox_magic", "demo", "--output", "made"],
        cwd=tmp_path,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (demo.returncode, demo.stderr) == (0, "")
    assert time.monotonic() - began < 60
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made"], "the notebook's own files are gone"

    stored, executed = read(ROOT / "notebooks" / "quickstart.ipynb"), read(tmp_path / "made" / "quickstart.ipynb")
    assert_same(code_cells(stored), code_cells(executed))
    assert_told_in_order(demo.stdout, executed)
    page = (tmp_path / "made" / "quickstart.html").read_text("utf-8")
    assert "<html" in page and "still here, in /work/project" in page
    assert str(Path("made") / "quickstart.ipynb") in demo.stdout
    assert str(Path("made") / "quickstart.html") in demo.stdout


def assert_same(stored: list[Any], executed: list[Any]) -> None:
    for old, new in zip(stored, executed, strict=True):
        new.outputs = [output for output in new.outputs if output.output_type != "display_data"]  # "done: ... (0.6 s)"
        if old.source == "%sandboxctl status":
            assert facts(old) == facts(new)
        else:
            assert shown(old) == shown(new), old.source


def facts(cell: Any) -> list[str]:
    """Return the names of what is known of the sandbox: the values differ from run to run."""
    return [line.strip().split("  ")[0] for line in "".join(shown(cell)).splitlines()]


def assert_told_in_order(told: str, notebook: Any) -> None:
    """Each cell is followed by its output and then by the next cell."""
    place = 0
    for cell in notebook.cells:
        texts = cell.source.splitlines()
        if cell.cell_type == "code":
            texts += [line for text in shown(cell) for line in text.splitlines()]
        for text in texts:
            place = told.find(re.sub(r"\x1b\[[\d;]*m", "", text).strip(), place)  # what was told has no colours
            assert place >= 0, text
