"""What a user sees in JupyterLab: live output, a failure that stops "Run all", the stop button."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from conftest import Lab
from playwright.sync_api import Browser, Locator, Page, expect

LOAD = "%load_ext sandbox_magic"
WAIT = 30_000  # ms


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1200, "height": 1400})
    page.set_default_timeout(WAIT)
    yield page
    page.close()


class Notebook:
    """A notebook that is open in JupyterLab.

    Args:
        lab: Where.
        page: The browser's page.
        name: The name of the file, and of Lab's workspace.
        cells: The code of its cells.
    """

    def __init__(self, lab: Lab, page: Page, name: str, *cells: str) -> None:
        self._page = page
        self.file: Path = lab.folder / f"{name}.ipynb"
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        made = [nbformat.v4.new_code_cell(cell) for cell in cells]
        nbformat.write(nbformat.v4.new_notebook(cells=made, metadata=kernel), self.file)
        page.goto(lab.address(self.file.name, name))
        expect(page.locator(".jp-Notebook .jp-CodeCell")).to_have_count(len(cells), timeout=WAIT)
        self.idle()

    def idle(self) -> None:
        """Wait until the kernel has nothing to do."""
        expect(self._page.locator(".jp-NotebookPanel .jp-Notebook-ExecutionIndicator")).to_have_attribute(
            "data-status", "idle", timeout=WAIT
        )

    def run_all(self) -> None:
        self._page.get_by_role("menuitem", name="Run", exact=True).click()
        self._page.get_by_role("menuitem", name="Run All Cells", exact=True).click()

    def run(self, index: int) -> None:
        self._page.locator(".jp-Notebook .jp-CodeCell").nth(index).locator(".cm-content").click()
        self._page.keyboard.press("Control+Enter")

    def stop(self) -> None:
        """Press the stop button."""
        self._page.locator('.jp-NotebookPanel-toolbar [data-command="notebook:interrupt-kernel"]').first.click()

    def output(self, index: int) -> Locator:
        return self._page.locator(".jp-Notebook .jp-CodeCell").nth(index).locator(".jp-OutputArea-output")

    def prompt(self, index: int) -> Locator:
        return self._page.locator(".jp-Notebook .jp-CodeCell").nth(index).locator(".jp-InputPrompt")


def test_output_of_a_cell_is_streamed(lab: Lab, page: Page) -> None:
    notebook = Notebook(lab, page, "stream", LOAD, "%%sandbox\necho first; sleep 2; echo second", "print('end')")
    notebook.run_all()
    expect(notebook.output(1)).to_have_text("first\n", timeout=WAIT)
    assert notebook.prompt(1).inner_text() == "[*]:"  # it still runs
    expect(notebook.output(1)).to_have_text("first\nsecond\n", timeout=WAIT)
    expect(notebook.output(2)).to_have_text("end\n", timeout=WAIT)


def test_failing_cell_stops_the_run_and_shows_one_short_error(lab: Lab, page: Page) -> None:
    notebook = Notebook(lab, page, "failure", LOAD, "%%sandbox\necho '<b>before</b>'; no-such-command", "print('ran')")
    notebook.run_all()
    error = notebook.output(1).last
    expect(error).to_have_text(
        "CommandFailed: exit status 127: command not found: is it installed in the sandbox, is PATH right?",
        timeout=WAIT,
    )
    notebook.idle()
    expect(notebook.output(1)).to_have_count(2)
    expect(notebook.output(1).first).to_contain_text("<b>before</b>")
    expect(notebook.output(2)).to_have_count(0)
    assert notebook.prompt(2).inner_text() == "[ ]:"


def test_stop_button_leaves_a_usable_kernel(lab: Lab, page: Page) -> None:
    notebook = Notebook(
        lab,
        page,
        "stop",
        LOAD,
        "%%sandbox\nkept=variable; echo begun; sleep 100; echo not this",
        '%%sandbox\necho "usable: $kept"',
    )
    notebook.run_all()
    expect(notebook.output(1)).to_contain_text("begun", timeout=WAIT)
    begin = time.monotonic()
    notebook.stop()
    expect(notebook.output(1).last).to_have_text("KeyboardInterrupt: the command was stopped (SIGINT)", timeout=WAIT)
    notebook.idle()
    assert time.monotonic() - begin < 5
    expect(notebook.output(1).first).not_to_contain_text("not this")
    expect(notebook.output(2)).to_have_count(0)
    notebook.run(2)
    expect(notebook.output(2)).to_have_text("usable: variable\n", timeout=WAIT)
