"""A real kernel as a front end sees it: send cells, collect by parent what each one shows, interrupt, kill, restart."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from sandbox_magic.engines import find_engine
from sandbox_magic.engines.base import Found, Owner
from sandbox_magic.spec import SandboxSpec

CELL_SECONDS = 30.0
START_SECONDS = 30.0

Message = dict[str, Any]


@dataclass(repr=False)
class Cell:
    """What one cell has shown so far; whole once `idle` is set."""

    id: str
    messages: list[Message] = field(default_factory=list)
    arrived: list[float] = field(default_factory=list)  # one moment for each of `messages`
    reply: Message = field(default_factory=dict)
    idle: bool = False

    def add(self, message: Message) -> None:
        self.messages.append(message)
        self.arrived.append(time.monotonic())
        self.idle |= message["msg_type"] == "status" and message["content"]["execution_state"] == "idle"

    def __repr__(self) -> str:
        return f"Cell({[(message['msg_type'], message['content']) for message in self.messages]})"

    def contents(self, kind: str) -> list[Message]:
        return [message["content"] for message in self.messages if message["msg_type"] == kind]

    def kinds(self) -> set[str]:
        """What it showed: the types of its messages, without those that every cell has."""
        return {message["msg_type"] for message in self.messages} - {"status", "execute_input"}

    def stream(self, name: str) -> str:
        return "".join(content["text"] for content in self.contents("stream") if content["name"] == name)

    @property
    def stdout(self) -> str:
        return self.stream("stdout")

    @property
    def stderr(self) -> str:
        return self.stream("stderr")

    @property
    def status(self) -> str:
        """`ok`, `error` or `aborted`."""
        return str(self.reply["status"])

    @property
    def error(self) -> str:
        """What the notebook shows of the error, without colours; empty if there was none."""
        errors = self.contents("error")
        assert len(errors) <= 1, errors
        return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(errors[0]["traceback"])) if errors else ""

    @property
    def error_name(self) -> str:
        errors = self.contents("error")
        return str(errors[0]["ename"]) if errors else ""

    def seconds_from(self, text: str) -> float:
        """Return how long before the cell's end this text had arrived."""
        for message, moment in zip(self.messages, self.arrived, strict=True):
            if message["msg_type"] == "stream" and text in message["content"]["text"]:
                return self.arrived[-1] - moment
        raise AssertionError(f"{text!r} was not shown: {self}")


class Kernel:
    """One kernel process and a client of it; use it as a context manager.

    Args:
        folder: Its working directory; its log and IPython's files go there too.
        env: More environment variables.
    """

    manager: KernelManager
    client: BlockingKernelClient

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder = folder
        self._env = os.environ | {"IPYTHONDIR": str(folder / ".ipython"), **env}
        for name in [name for name in self._env if name.startswith("SANDBOX_MAGIC_")]:
            if name not in env:
                del self._env[name]
        self._cells: dict[str, Cell] = {}

    def __enter__(self) -> Self:
        (self.folder / "pyproject.toml").touch()  # the nearest one is this, not that of the checkout
        specs = KernelSpecManager(kernel_dirs=[])  # no installed kernel: ours, with the interpreter of the tests
        self.manager = KernelManager(kernel_spec_manager=specs)
        self._log = (self.folder / "kernel.log").open("ab")  # open until the end: a restart uses it again
        self.manager.start_kernel(cwd=str(self.folder), env=self._env, stdout=self._log, stderr=self._log)
        assert self.manager.kernel_spec.argv[0] == sys.executable
        self._connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.stop_channels()
        if self.manager.is_alive():
            self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()
        self._log.close()
        self.manager.context.destroy(linger=0)  # else its sockets are reported when they are collected

    def _connect(self) -> None:
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=START_SECONDS)

    @property
    def pid(self) -> int:
        return int(self.manager.provisioner.process.pid)

    # ---- cells

    def send(self, code: str) -> Cell:
        """Send a cell and do not wait for it."""
        cell = Cell(self.client.execute(code))
        self._cells[cell.id] = cell
        return cell

    def run(self, code: str, *, timeout: float = CELL_SECONDS) -> Cell:
        """Run a cell to its end, whatever that is."""
        return self.wait(self.send(code), timeout=timeout)

    def ok(self, code: str, *, timeout: float = CELL_SECONDS) -> Cell:
        """Run a cell that must succeed."""
        cell = self.run(code, timeout=timeout)
        assert cell.status == "ok", cell.error
        return cell

    def wait(self, cell: Cell, *, timeout: float = CELL_SECONDS) -> Cell:
        """Wait for the end of a cell that was sent."""
        deadline = time.monotonic() + timeout
        self._receive(lambda: cell.idle, deadline, f"the cell did not end: {cell}")
        while not cell.reply:
            reply = self.client.get_shell_msg(timeout=max(0.1, deadline - time.monotonic()))
            if known := self._cells.get(reply["parent_header"].get("msg_id", "")):
                known.reply = reply["content"]
        return cell

    def wait_for(self, cell: Cell, text: str, *, timeout: float = CELL_SECONDS) -> None:
        """Wait until a running cell has shown this text."""
        self._receive(lambda: text in cell.stdout or cell.idle, time.monotonic() + timeout, f"never shown: {text!r}")
        assert text in cell.stdout, cell

    def value(self, expression: str) -> str:
        """Return the `repr` of a Python expression in the kernel."""
        reply = self.client.execute(
            "", silent=True, user_expressions={"value": expression}, reply=True, timeout=CELL_SECONDS
        )
        found = reply["content"]["user_expressions"]["value"]
        assert found["status"] == "ok", found
        return str(found["data"]["text/plain"])

    def _receive(self, done: Callable[[], bool], deadline: float, otherwise: str) -> None:
        while not done():
            left = deadline - time.monotonic()
            try:
                message = self.client.get_iopub_msg(timeout=max(0.01, left))
            except queue.Empty:
                raise AssertionError(otherwise) from None
            if cell := self._cells.get(message["parent_header"].get("msg_id", "")):
                cell.add(message)

    # ---- life

    def interrupt(self) -> None:
        """Press the stop button."""
        self.manager.interrupt_kernel()

    def restart(self) -> None:
        self.client.stop_channels()
        self.manager.restart_kernel()
        self._connect()

    def shutdown(self) -> None:
        self.manager.shutdown_kernel()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the kernel's process alone, and wait until that has ended."""
        process: subprocess.Popen[bytes] = self.manager.provisioner.process
        process.send_signal(number)
        process.wait(10)

    def containers(self) -> list[Found]:
        """Return what the engine has with this kernel's label."""
        return containers(self.pid)


def containers(pid: int) -> list[Found]:
    """Return the containers whose label names this process of this machine as their owner."""
    host = Owner.me().host
    found = find_engine(SandboxSpec()).found()
    return [one for one in found if (owner := Owner.from_labels(one.labels)).pid == pid and owner.host == host]


def seconds_until(done: Callable[[], bool], limit: float) -> float:
    """Return how long it took until something is so; `limit` if it took longer."""
    begin = time.monotonic()
    while (passed := time.monotonic() - begin) < limit:
        if done():
            return passed
        time.sleep(0.01)  # nothing tells us of it
    return limit


@contextmanager
def sandbox_kernel(folder: Path, **env: str) -> Iterator[Kernel]:
    """Give a kernel with the extension loaded; it is killed at the end, and its containers with it."""
    with Kernel(folder, **env) as kernel:
        kernel.ok("%load_ext sandbox_magic")
        yield kernel


def variables(kernel: Kernel) -> tuple[str, str]:
    """Return `_exit_code`, and the exit code in `_sandbox`."""
    return kernel.value("_exit_code"), kernel.value("_sandbox.exit_code")


def running(kernel: Kernel) -> set[str]:
    """Return the names of the kernel's sandboxes, as the engine has them."""
    return {found.labels["sandbox-magic.name"] for found in kernel.containers()}


def assert_short(cell: Cell, name: str) -> None:
    """The error is one text of at most three lines and holds nothing of our stack."""
    assert cell.status == "error"
    assert cell.error_name == name
    (content,) = cell.contents("error")
    assert len(content["traceback"]) == 1
    assert content["traceback"][0].count("\n") <= 2
    assert "Traceback" not in cell.error and "File" not in cell.error and ".py" not in cell.error
    assert cell.error.startswith(f"{name}: ")
