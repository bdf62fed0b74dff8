"""The seed's workflow on real input: a stranger's JPEG becomes a thumbnail, in a notebook and in a program."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import docker
import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
FAILING = "gm convert missing.jpg"

pytestmark = pytest.mark.timeout(300)  # apt fetches 30 MB from Debian's mirror


@pytest.fixture
def manager() -> Iterator[KernelManager]:
    """A kernel of this very Python, which a client of ours does not end."""
    manager = KernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    yield manager
    if manager.has_kernel:
        manager.shutdown_kernel(now=True)


def ask(client: NotebookClient, expression: str) -> str:
    """Return what an expression is in the kernel, after everything that has run."""
    cell = nbformat.v4.new_code_cell(f"print({expression})")
    client.nb.cells.append(cell)
    client.execute_cell(cell, len(client.nb.cells) - 1)
    return "".join(output.text for output in client.nb.cells.pop().outputs if output.output_type == "stream").strip()


def containers(pid: int) -> list[str]:
    """Return the sandboxes that belong to the process."""
    client = docker.from_env()
    try:
        found = client.containers.list(all=True, filters={"label": ["sandbox-magic", f"sandbox-magic.owner.pid={pid}"]})
        return [container.short_id for container in found]
    finally:
        client.close()


def assert_thumbnail(path: Path) -> None:
    with Image.open(path) as thumbnail:
        thumbnail.load()
        assert (thumbnail.format, thumbnail.size) == ("JPEG", (120, 90))
        low, high = thumbnail.convert("L").getextrema()
        assert high - low > 50, "the picture is gone"


def test_the_notebook_converts_stops_where_it_fails_and_leaves_nothing(
    manager: KernelManager, avatar_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVATAR_URL", avatar_url)
    notebook = nbformat.read(ROOT / "notebooks" / "convert-images.ipynb", as_version=4)
    for cell in notebook.cells:  # without the tag that lets the notebook go on, as any notebook of a user's is
        cell.metadata.pop("tags", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    failing = next(index for index, cell in enumerate(notebook.cells) if FAILING in cell.source)
    client = NotebookClient(
        notebook, km=manager, kernel_name="python3", timeout=240, resources={"metadata": {"path": str(tmp_path)}}
    )

    with pytest.raises(CellExecutionError, match=r"exit status 1$"):
        client.execute()
    rest = notebook.cells[failing + 1 :]
    assert all(cell.execution_count is None for cell in rest if cell.cell_type == "code"), "Run all went on"
    assert ask(client, "_exit_code, _sandbox.exit_code") == "1 1"
    assert_thumbnail(tmp_path / "thumbnail.jpg")
    pid = int(ask(client, "__import__('os').getpid()"))
    assert len(containers(pid)) == 1

    for index, cell in enumerate(rest, start=failing + 1):
        client.execute_cell(cell, index)
    assert "no sandbox" in rest[-1].outputs[0].text
    assert containers(pid) == []
    client.kc.stop_channels()


def run_example(folder: Path, url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, ROOT / "docs" / "examples" / "convert_images.py"],
        cwd=folder,
        env={**os.environ, "AVATAR_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_program_converts_and_leaves_nothing(avatar_url: str, tmp_path: Path) -> None:
    with run_example(tmp_path, avatar_url) as program:
        output, errors = program.communicate()
    assert program.returncode == 0, errors
    assert "Setting up graphicsmagick" in output
    assert_thumbnail(tmp_path / "thumbnail.jpg")
    assert containers(program.pid) == []


def test_the_program_says_which_command_failed(avatar_url: str, tmp_path: Path) -> None:
    with run_example(tmp_path, avatar_url.replace("avatar.jpg", "missing.jpg")) as program:
        _, errors = program.communicate()
    assert program.returncode == 1
    assert 'wget -q -O avatar.jpg "$AVATAR_URL" ended with exit code 8' in errors
    assert list(tmp_path.iterdir()) == [] and containers(program.pid) == []
