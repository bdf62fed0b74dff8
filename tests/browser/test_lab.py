"""What a user sees in JupyterLab: live output, a failure that stops "Run all", the stop button."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from labs import WAIT, Lab, Notebook, running_browser, running_lab
from playwright.sync_api import Browser, Page, expect

LOAD = "%load_ext sandbox_magic\n%sandboxctl start"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1200, "height": 1400})
    page.set_default_timeout(WAIT)
    yield page
    page.close()


def test_output_of_a_cell_is_streamed(lab: Lab, page: Page) -> None:
    notebook = Notebook(lab, page, "stream", LOAD, "%%sandbox\necho first; sleep 2; echo second", "print('end')")
    notebook.run_all()
    expect(notebook.outputs(1)).to_have_text("first\n", timeout=WAIT)
    expect(notebook.prompt(1)).to_have_text("[*]:", timeout=1000)  # it still runs
    expect(notebook.outputs(1)).to_have_text("first\nsecond\n", timeout=WAIT)
    expect(notebook.outputs(2)).to_have_text("end\n", timeout=WAIT)


def test_failing_cell_stops_the_run_and_shows_one_short_error(lab: Lab, page: Page) -> None:
    notebook = Notebook(lab, page, "failure", LOAD, "%%sandbox\necho '<b>before</b>'; no-such-command", "print('ran')")
    notebook.run_all()
    expect(notebook.outputs(1)).to_have_count(2, timeout=WAIT)
    expect(notebook.outputs(1).first).to_contain_text("<b>before</b>")  # text, not bold
    expect(notebook.outputs(1).last).to_have_text(
        "CommandFailed: exit status 127: command not found: is it installed in the sandbox, is PATH right?"
    )
    notebook.wait_until_idle()
    expect(notebook.outputs(2)).to_have_count(0)
    expect(notebook.prompt(2)).to_have_text("[ ]:")


def test_stop_button_leaves_a_usable_kernel(lab: Lab, page: Page) -> None:
    long, after = "%%sandbox\nkept=variable; echo begun; sleep 100; echo not this", '%%sandbox\necho "usable: $kept"'
    notebook = Notebook(lab, page, "stop", LOAD, long, after)
    notebook.run_all()
    expect(notebook.outputs(1)).to_contain_text("begun", timeout=WAIT)
    begin = time.monotonic()
    notebook.stop()
    expect(notebook.outputs(1).last).to_have_text("KeyboardInterrupt: the command was stopped (SIGINT)", timeout=WAIT)
    notebook.wait_until_idle()
    assert time.monotonic() - begin < 5
    expect(notebook.outputs(1).first).not_to_contain_text("not this")
    expect(notebook.outputs(2)).to_have_count(0)  # it was queued
    notebook.run(2)
    expect(notebook.outputs(2)).to_have_text("usable: variable\n", timeout=WAIT)
