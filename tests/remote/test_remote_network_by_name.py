"""The network by name where the sandbox is on another machine, or has a kernel of its own: its way out is here."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import docker
import pytest
from machines import Tls

from sandbox_magic import InvalidOptions, Sandbox
from sandbox_magic.egress.relay import PORT

IMAGE = "debian:stable-slim"
ASK = f"""perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new("127.0.0.1:{PORT}") or die; $h = "a.example:$ARGV[0]";
print $s "CONNECT $h HTTP/1.1\\r\\nHost: $h\\r\\n\\r\\n"; print while <$s>' """


@pytest.fixture
def greeter() -> Iterator[int]:
    """The port of a server on this machine that greets whoever connects."""

    def greet() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                with sock:
                    sock.sendall(b"hello from here\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=greet, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def load(client: docker.DockerClient) -> None:
    """Give an engine the image of the machine's own."""
    local = docker.from_env(version="1.40")
    client.images.load(b"".join(local.images.get(IMAGE).save(named=True)))
    local.close()


def greeted(box: Sandbox, port: int) -> None:
    """Check that the name is reached, and nothing else."""
    assert "hello from here" in box.run(f"{ASK} {port}", timeout=60, check=True).stdout
    assert "403" in box.run(f"{ASK} 22", timeout=60).stdout
    assert box.status()["network interfaces"] == "lo"
    assert [access.allowed for access in box.network_log] == [True, False]


def test_on_another_machine(tls: Tls, greeter: int, monkeypatch: pytest.MonkeyPatch) -> None:
    load(tls.client)
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tls.certificates))
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    with Sandbox(IMAGE, docker_host=tls.url, network=[f"a.example@127.0.0.1:{greeter}"]) as box:
        greeted(box, greeter)


def test_on_gvisor(gvisor: str, greeter: int) -> None:
    client = docker.DockerClient(base_url=gvisor, version="1.40")
    load(client)
    client.close()
    with Sandbox(IMAGE, docker_host=gvisor, profile="sealed", network=[f"a.example@127.0.0.1:{greeter}"]) as box:
        greeted(box, greeter)
        with pytest.raises(InvalidOptions, match="gVisor"):
            box.run("true", network=True)
