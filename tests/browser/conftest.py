"""A real JupyterLab and a real browser for the tests beside this file."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

START_SECONDS = 40.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab."""

    folder: Path
    url: str
    token: str

    def address(self, notebook: str, workspace: str) -> str:
        return f"{self.url}lab/workspaces/{workspace}/tree/{notebook}?token={self.token}"

    def get(self, path: str) -> Any:
        """Return what the server answers; it is ours, on this machine."""
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"token {self.token}"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _environment(folder: Path) -> dict[str, str]:
    """Return an environment in which no file of the user's counts, and no proxy stands between."""
    own = {name: str(folder / name.lower()) for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")}
    own |= {"JUPYTER_DATA_DIR": str(folder / "data"), "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings")}
    own |= {"JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces")}
    return {name: value for name, value in os.environ.items() if not name.startswith("SANDBOX_MAGIC_")} | own


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One JupyterLab, of the interpreter that runs the tests."""
    folder, private = tmp_path_factory.mktemp("lab"), tmp_path_factory.mktemp("lab-private")
    lab = Lab(folder, f"http://127.0.0.1:{_free_port()}/", secrets.token_hex(16))
    settings = {
        "IdentityProvider.token": lab.token,
        "ServerApp.port": lab.url.rstrip("/").rpartition(":")[2],
        "ServerApp.port_retries": "0",
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.root_dir": str(folder),
        "ServerApp.open_browser": "False",
        "ServerApp.allow_root": "True",
        "LabApp.news_url": "None",
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    }
    command = [sys.executable, "-m", "jupyterlab", *(f"--{name}={value}" for name, value in settings.items())]
    (folder / "pyproject.toml").touch()  # the nearest one is this, not that of the checkout
    with (private / "lab.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, env=_environment(private), stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(lab):
            said = (private / "lab.log").read_text(errors="replace")[-2000:]
            assert server.poll() is None, f"JupyterLab ended: {said}"
            assert time.monotonic() < deadline, f"JupyterLab does not answer: {said}"
            time.sleep(0.1)  # it tells nobody that it is ready
        yield lab
    finally:
        server.send_signal(signal.SIGTERM)  # ends its kernels first
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(5)


def _answers(lab: Lab) -> bool:
    try:
        lab.get("api/status")
    except OSError:
        return False
    return True


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium, or else the one that Playwright has installed."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield browser
        browser.close()
