"""What README and the user guide show is what a kernel shows: their cells, in their order."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernels import Cell, sandbox_kernel

from sandbox_magic.jupyter.control import help_text
from sandbox_magic.jupyter.options import help_markdown

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "usage.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
ELSEWHERE = re.compile(
    r"^%%sandbox -[it]$|--image python|apt-get|network allow", re.MULTILINE
)  # people, images, network
CHANGING = re.compile(r"(?<=duration=)[0-9.]+|(?<=/proc/)[0-9]+")


def cells(file: Path, end: str) -> Iterator[tuple[str, str | None]]:
    """Yield the cells before a heading, each with what is printed below it, if something is."""
    blocks = BLOCK.findall(file.read_text(encoding="utf-8").partition(f"\n## {end}\n")[0])
    for (language, code), (below, text) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if not language and not ELSEWHERE.search(code):
            yield code.rstrip("\n"), text if below == "text" else None


def shown(cell: Cell) -> str:
    results = [content["data"]["text/plain"] for content in cell.contents("execute_result")]
    return plain("\n".join([cell.stdout, cell.error, *results]))


def plain(text: str) -> str:
    """Return it without what is another each time, and without empty lines."""
    return CHANGING.sub("N", "\n".join(line for line in text.splitlines() if line))


@pytest.mark.parametrize(
    ("file", "end", "least"),
    [(ROOT / "README.md", "In a program", 6), (GUIDE, "Sandboxes", 20)],
    ids=["README", "guide"],
)
def test_cells_show_what_is_written_below_them(file: Path, end: str, least: int, tmp_path: Path) -> None:
    (tmp_path / "numbers.csv").write_text("1,2\n")
    run = list(cells(file, end))
    assert len(run) >= least
    with sandbox_kernel(tmp_path) as kernel:
        for code, text in run:
            cell = kernel.run(code)
            if text is not None:
                assert shown(cell) == plain(text), code
            if code.endswith("echo started"):
                time.sleep(1)  # what the next cell shows comes from a job that takes a moment


def test_the_guide_has_all_options_and_verbs() -> None:
    guide = GUIDE.read_text(encoding="utf-8")
    assert help_markdown() in guide
    assert help_text() in guide
