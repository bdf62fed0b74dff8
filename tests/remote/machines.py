"""Engines on another machine: a dockerd with TLS and an sshd, both on loopback, both started here and ended here.

The dockerd has a network namespace of its own, or it would take the bridge of the machine's dockerd away. Its listening
socket is made here and handed over, as systemd does it.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker
import requests

IMAGE = "busybox:latest"


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)


def until(what: str, test: Callable[[], object], seconds: float = 60) -> None:
    """Wait until `test` is true."""
    deadline = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def authority(folder: Path) -> None:
    """Make ca.pem, and certificates of it for a server (server-*.pem) and a client (cert.pem, key.pem)."""
    folder.mkdir()
    new = ("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    run(*new, "-x509", "-days", "2", "-subj", "/CN=test", "-keyout", folder / "ca-key.pem", "-out", folder / "ca.pem")
    for name, prefix, usage in (("server", "server-", "serverAuth"), ("client", "", "clientAuth")):
        run(*new, "-subj", f"/CN={name}", "-keyout", folder / f"{prefix}key.pem", "-out", folder / "request.pem")
        (folder / "extensions").write_text(f"subjectAltName = IP:127.0.0.1\nextendedKeyUsage = {usage}\n")
        signed = ("openssl", "x509", "-req", "-days", "2", "-in", folder / "request.pem", "-CA", folder / "ca.pem")
        key = ("-CAkey", folder / "ca-key.pem", "-CAcreateserial", "-extfile", folder / "extensions")
        run(*signed, *key, "-out", folder / f"{prefix}cert.pem")


HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execvp(sys.argv[2], sys.argv[2:])
"""
TLS_FILES = {"cacert": "ca.pem", "cert": "server-cert.pem", "key": "server-key.pem"}


@dataclass(frozen=True)
class Ssh:
    """An sshd on a machine with a dockerd.

    Attributes:
        url: For ``docker_host=``.
        programs: A folder for PATH with an ssh that is known there.
    """

    url: str
    programs: str


@dataclass(frozen=True)
class Tls:
    """A dockerd with TLS.

    Attributes:
        port: Where it listens on 127.0.0.1.
        certificates: The folder for DOCKER_CERT_PATH.
        client: A client of its own, not ours.
    """

    port: int
    certificates: Path
    client: docker.DockerClient

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def containers(self) -> list[str]:
        return [container["Id"] for container in self.client.api.containers(all=True)]


@contextmanager
def dockerd(folder: Path, *arguments: str | Path, without: Sequence[str] = ()) -> Iterator[int]:
    """Run a dockerd with everything in `folder`; give the port on 127.0.0.1 on which it listens.

    Args:
        folder: Where it keeps everything.
        arguments: Its own.
        without: Controllers of control groups that are not mounted where it runs.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    unmount = "".join(f"umount /sys/fs/cgroup/{name} && " for name in without)
    command = [
        *("unshare", "--net", "--mount", "sh", "-c", f'{unmount}exec "$0" "$@"'),
        "dockerd",
        "--host=fd://",
        f"--data-root={folder}/data",
        f"--exec-root={folder}/exec",
    ]
    command += [f"--pidfile={folder}/pid", *map(str, arguments)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", HAND_OVER, str(listener.fileno()), *command],
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    port = listener.getsockname()[1]
    listener.close()
    try:
        yield port
    finally:
        end(process)


def provide(client: docker.DockerClient, folder: Path) -> None:
    """Wait until it answers, and give it the image of the machine's own dockerd."""

    def answers() -> bool:
        try:
            return client.ping()
        except (docker.errors.APIError, requests.RequestException):
            return False

    until(f"dockerd does not answer: its log is {folder}/log", answers)
    local = docker.from_env()
    client.images.load(b"".join(local.images.get(IMAGE).save(named=True)))
    local.close()
