"""A Docker Engine of the tests' own, to be stopped, killed and frozen; nobody else's is ever touched.

It has a network namespace of its own, or it would take the bridge of the machine's engine away.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import docker

IMAGE = "busybox:latest"
SECONDS = 60.0


def until(what: str, holds: Callable[[], object], seconds: float = SECONDS) -> float:
    """Wait until something holds; return how long that took."""
    begin = time.monotonic()
    while not holds():
        assert time.monotonic() - begin < seconds, what
        time.sleep(0.02)  # nothing tells us of it
    return time.monotonic() - begin


class Daemon:
    """A dockerd with its own containerd and its own folder, to be used as a context manager.

    Args:
        arguments: More arguments of dockerd.
        size: Bytes of the file system that containers and images are on; 0 for a folder on the machine's own.
    """

    def __init__(self, *arguments: str, size: int = 0) -> None:
        self._arguments = arguments
        self._size = size
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="sbx-"))  # short: paths of sockets have at most 107 bytes
        if self._size:
            (self.folder / "data").mkdir()
            options = f"size={self._size},mode=711"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", self.folder / "data"], check=True)
        self.url = f"unix://{self.folder}/docker.sock"
        self.start()
        self.client = docker.DockerClient(base_url=self.url, version="1.40", timeout=int(SECONDS))
        image = docker.from_env()
        self.client.images.load(b"".join(image.images.get(IMAGE).save(named=True)))
        image.close()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.resume()
        self.stop()
        for pid in self.remains():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until("processes of the dockerd are left", lambda: not self.remains())
        for mount in reversed([line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]):
            if mount.startswith(f"{self.folder}"):
                subprocess.run(["umount", "--lazy", mount], check=True)
        shutil.rmtree(self.folder)

    # ---- life

    def start(self) -> None:
        """Start it and wait until it answers."""
        folders = [f"--data-root={self.folder}/data", f"--exec-root={self.folder}/exec"]
        command = ["unshare", "--net", "dockerd", f"--host={self.url}", f"--pidfile={self.folder}/pid", *folders]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *self._arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        until(f"dockerd does not answer: its log is {self.folder}/log", self.answers)

    def answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as stream:
            stream.settimeout(5)
            stream.connect(self.url.removeprefix("unix://"))
            stream.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in stream.recv(4096)
        return False

    def stop(self) -> None:
        """End it as the system does."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without a warning."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(SECONDS)
            self.process = None
            # Its containerd ends with it. A zombie, where process 1 reaps nobody, would pass for a living one.
            (self.folder / "exec/containerd/containerd.pid").unlink(missing_ok=True)

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)

    # ---- what it has

    def containers(self) -> list[str]:
        return [str(container["Id"]) for container in self.client.api.containers(all=True)]

    def networks(self) -> set[str]:
        return {network["Name"] for network in self.client.api.networks()}

    def remains(self) -> list[int]:
        """Return the process ids of its containerd and the shims, and of what runs below these."""
        mine = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if str(self.folder).encode() in (entry / "cmdline").read_bytes() and int(entry.name) != os.getpid():
                    mine.append(int(entry.name))
        return mine
