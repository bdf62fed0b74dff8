"""A real JupyterLab, and a notebook that is open in it in a real browser."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

START_SECONDS = 90.0  # another process of tests works at the same time
STOP_SECONDS = 15.0
WAIT = 30_000  # ms; for whatever the page shall show
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
CELL = ".jp-Notebook .jp-CodeCell"


@dataclass(frozen=True)
class Lab:
    """A JupyterLab of the interpreter that runs the tests.

    Attributes:
        folder: Where its notebooks are.
    """

    folder: Path
    port: int
    token: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}api/status?token={self.token}", timeout=5):
                return True
        except OSError:
            return False


@contextmanager
def running_lab(folder: Path, private: Path) -> Iterator[Lab]:
    """Start a JupyterLab, and end it with its kernels.

    Args:
        folder: Where its notebooks are.
        private: Where everything else is that it writes.
    """
    lab = Lab(folder, _free_port(), secrets.token_hex(16))
    settings = {
        "IdentityProvider.token": lab.token,
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": str(lab.port),
        "ServerApp.port_retries": "0",  # another port would be another server's
        "ServerApp.root_dir": str(folder),
        "ServerApp.open_browser": "False",
        "ServerApp.allow_root": "True",
    }
    command = [sys.executable, "-m", "jupyterlab", *(f"--{name}={value}" for name, value in settings.items())]
    _ask_nobody_for_news(private)
    (folder / "pyproject.toml").touch()  # the nearest one is this, not that of the checkout
    log = private / "lab.log"
    with log.open("wb") as sink:
        server = subprocess.Popen(command, cwd=folder, env=_environment(private), stdout=sink, stderr=sink)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not lab.answers():
            assert server.poll() is None, f"JupyterLab has ended: {log.read_text(errors='replace')[-2000:]}"
            assert time.monotonic() < deadline, f"JupyterLab is silent: {log.read_text(errors='replace')[-2000:]}"
            time.sleep(0.1)  # it tells nobody that it is ready
        yield lab
    finally:
        server.terminate()  # it ends its kernels first
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(STOP_SECONDS)


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Start the system's Chromium, or else the one that Playwright has installed."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield browser
        browser.close()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _environment(private: Path) -> dict[str, str]:
    """Return an environment in which no settings of the user count."""
    names = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    names += ("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")
    theirs = {name: value for name, value in os.environ.items() if not name.startswith("SANDBOX_MAGIC_")}
    return theirs | {name: str(private / name.lower()) for name in names}


def _ask_nobody_for_news(private: Path) -> None:
    """Let Lab ask neither the user about news nor the network about updates."""
    file = private / "jupyterlab_settings_dir/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    file.parent.mkdir(parents=True)
    file.write_text('{"checkForUpdates": false, "fetchNews": "false"}')


class Notebook:
    """A notebook that is open in JupyterLab; its kernel is ready.

    Args:
        lab: Where.
        page: The browser's page.
        name: The name of the file, and of Lab's workspace.
        cells: The code of its cells.
    """

    def __init__(self, lab: Lab, page: Page, name: str, *cells: str) -> None:
        self._page = page
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        made = [nbformat.v4.new_code_cell(cell) for cell in cells]
        nbformat.write(nbformat.v4.new_notebook(cells=made, metadata=kernel), lab.folder / f"{name}.ipynb")
        page.goto(f"{lab.url}lab/workspaces/{name}/tree/{name}.ipynb?token={lab.token}")
        expect(page.locator(CELL)).to_have_count(len(cells), timeout=WAIT)
        self.wait_until_idle()

    def wait_until_idle(self) -> None:
        """Wait until Lab shows that the kernel is connected and has nothing to do."""
        # Not the notebook's own indicator: that is idle before there is a kernel, and then Lab drops what is run.
        expect(self._page.locator("#jp-main-statusbar").get_by_text("| Idle")).to_be_visible(timeout=WAIT)

    def run_all(self) -> None:
        self._page.get_by_role("menuitem", name="Run", exact=True).click()
        self._page.get_by_role("menuitem", name="Run All Cells", exact=True).click()

    def run(self, index: int) -> None:
        self._page.locator(CELL).nth(index).locator(".cm-content").click()
        self._page.keyboard.press("Control+Enter")

    def stop(self) -> None:
        """Press the stop button."""
        self._page.locator('.jp-NotebookPanel-toolbar [data-command="notebook:interrupt-kernel"]').first.click()

    def outputs(self, index: int) -> Locator:
        """Return what a cell shows below its code."""
        return self._page.locator(CELL).nth(index).locator(".jp-OutputArea-output")

    def prompt(self, index: int) -> Locator:
        """Return what stands before a cell's code: ``[*]:`` while it runs."""
        return self._page.locator(CELL).nth(index).locator(".jp-InputPrompt")
