"""The same work without us: the Docker SDK, a blocking socket, and as little Python as possible."""

from __future__ import annotations

import socket
import struct
from functools import cache
from typing import Any

import docker

from sandbox_magic.engines.body import container_body
from sandbox_magic.engines.endpoints import docker_places, first
from sandbox_magic.spec import SandboxSpec

_READ = 1 << 16


@cache
def api() -> docker.APIClient:
    """Return the SDK's low-level client."""
    return first(docker_places(None), podman=False).client.api


@cache
def cpus() -> float:
    """Return how many processors the engine has."""
    return float(api().info()["NCPU"])


def _raw(stream: Any) -> Any:
    """Return the socket below what the SDK hands out."""
    return getattr(stream, "_sock", stream)


class RawShell:
    """A shell on an exec stream of a container that is there already."""

    def __init__(self, container: str, shell: str, *, user: str = "") -> None:
        exec_id = api().exec_create(container, [shell], stdin=True, user=user)["Id"]
        self._stream: Any = api().exec_start(exec_id, socket=True)
        self._socket: socket.socket = _raw(self._stream)
        self._socket.settimeout(30)
        self.line()

    def line(self, command: bytes = b"true") -> bytes:
        """Send a command and one ``echo``; return the bytes up to its answer, frames and all."""
        self._socket.sendall(command + b";echo done\n")
        answer = self._socket.recv(_READ)
        while not answer.endswith(b"done\n"):
            answer += self._socket.recv(_READ)
        return answer

    def count(self, command: bytes) -> int:
        """Run a command and return how many bytes it has printed; none of them is looked at."""
        self._socket.sendall(command + b";exit\n")
        buffer = memoryview(bytearray(_READ))
        total = 0
        while (header := self._exactly(8)) is not None:
            left = struct.unpack(">BxxxI", header)[1]
            total += left
            while left:
                left -= self._socket.recv_into(buffer[: min(left, _READ)])
        return total

    def _exactly(self, size: int) -> bytes | None:
        data = b""
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            if not more:
                return None
            data += more
        return data

    def close(self) -> None:
        """Close the stream."""
        self._socket.close()
        self._stream.close()


class RawContainer:
    """A container with the options of a sandbox: created, attached to, started, one command in a shell run."""

    def __init__(self, spec: SandboxSpec, shell: str) -> None:
        arguments = container_body(spec, labels={}, cpus=cpus())
        # Offline from the start, which costs less than to take it off the bridge; but it could never go online.
        arguments["host_config"] = api().create_host_config(**arguments["host_config"] | {"network_mode": "none"})
        self._id: str = api().create_container(**arguments)["Id"]
        try:
            self._keeper: Any = api().attach_socket(self._id, params={"stdin": 1, "stdout": 1, "stream": 1})
            api().start(self._id)
            self._shell = RawShell(self._id, shell, user="0:0")
        except BaseException:
            api().remove_container(self._id, force=True)
            raise

    def close(self) -> None:
        """End it."""
        self._shell.close()
        api().remove_container(self._id, force=True)
        _raw(self._keeper).close()
        self._keeper.close()
