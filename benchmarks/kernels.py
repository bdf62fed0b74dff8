"""Cells in a real kernel, and what is left when it is killed."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from benchmarks.by_hand import api
from benchmarks.measure import Rows, at_most, compared, limited, medians, seconds
from sandbox_magic.engines.base import Owner

_SECONDS = 30
_TRIES = 20


class _Kernel:
    """A kernel with the interpreter of the benchmarks and the extension loaded."""

    def __init__(self, folder: str) -> None:
        self._manager = KernelManager(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
        self._manager.start_kernel(cwd=folder, stderr=subprocess.DEVNULL)
        self._client: BlockingKernelClient = self._manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=_SECONDS)
        self.run("%load_ext sandbox_magic")

    def run(self, code: str) -> None:
        """Send a cell and wait for its reply."""
        reply: Any = self._client.execute(code, reply=True, timeout=_SECONDS)
        if reply["content"]["status"] != "ok":
            raise RuntimeError(f"the cell failed: {reply['content']}")

    def containers(self) -> list[str]:
        """Return the ids of this kernel's containers."""
        owner = Owner(Owner.me().host, self._process.pid, "").labels()
        labels = [f"{key}={value}" for key, value in owner.items() if value]
        return [found["Id"] for found in api().containers(all=True, filters={"label": labels})]

    @property
    def _process(self) -> Any:
        return self._manager.provisioner.process  # type: ignore[union-attr] # it was started

    def kill(self) -> None:
        """Send SIGKILL, and wait for its end."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(_SECONDS)

    def close(self) -> None:
        """End it and the channels."""
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)
        self._manager.cleanup_resources()


@contextmanager
def _kernel() -> Iterator[_Kernel]:
    with tempfile.TemporaryDirectory() as folder:
        kernel = _Kernel(folder)
        try:
            yield kernel
        finally:
            kernel.close()


def cells() -> Rows:
    kinds = {"pass": "pass", "bash": "%%bash\ntrue", "sandbox": "%%sandbox\ntrue"}
    with _kernel() as kernel:
        for code in kinds.values():
            kernel.run(code)
        time.sleep(3)  # the sweep for what dead kernels left behind, once per kernel, is over

        def timed(code: str) -> float:
            return seconds(lambda: kernel.run(code))

        found = medians(150, {name: lambda code=code: timed(code) for name, code in kinds.items()})  # type: ignore[misc] # the default binds
    yield compared("a cell with `pass`, request to reply", found["pass"])
    yield compared("a %%bash cell with `true`", found["bash"])
    yield compared("a %%sandbox cell with `true`", found["sandbox"])
    yield at_most("  against %%bash", found["sandbox"] / found["bash"], 1)
    yield at_most("  against `pass`", found["sandbox"] / found["pass"], 1.3)


def killed() -> Rows:
    times = []
    for _ in range(_TRIES):
        with _kernel() as kernel:
            kernel.run("%%sandbox\ntrue")
            if len(kernel.containers()) != 1:
                raise RuntimeError("the kernel has no container to lose")
            begin = time.perf_counter()
            kernel.kill()
            while kernel.containers():
                time.sleep(0.005)  # the engine is asked; nothing tells us
            times.append(time.perf_counter() - begin)
    yield limited(f"SIGKILL of the kernel to container gone, slowest of {_TRIES}", max(times), 1)
