"""The machines of `machines.py`, as fixtures."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import docker
import pytest
import requests
from machines import TLS_FILES, Ssh, Tls, authority, dockerd, end, provide, run, until


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """A folder with a short name: paths of sockets have at most 107 bytes."""
    if os.geteuid() != 0:
        pytest.skip("only root can start a dockerd and an sshd")
    path = Path(tempfile.mkdtemp(prefix="sbx-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def tls(folder: Path) -> Iterator[Tls]:
    home = folder / "tls"
    home.mkdir()
    certificates = home / "certificates"
    authority(certificates)
    flags = [f"--tls{name}={certificates / file}" for name, file in TLS_FILES.items()]
    with dockerd(home, "--tlsverify", *flags) as port:
        config = docker.tls.TLSConfig(
            client_cert=(str(certificates / "cert.pem"), str(certificates / "key.pem")),
            ca_cert=str(certificates / "ca.pem"),
            verify=True,
        )
        client = docker.DockerClient(base_url=f"tcp://127.0.0.1:{port}", tls=config, version="1.40", timeout=30)
        client.api.trust_env = False  # or REQUESTS_CA_BUNDLE wins
        provide(client, home)
        yield Tls(port, certificates, client)
        client.close()


@pytest.fixture(scope="session")
def gvisor(folder: Path) -> Iterator[str]:
    """The address of a dockerd that knows gVisor as ``runsc``, ``careless``, which says so, and ``bounded``."""
    home = folder / "gvisor"
    home.mkdir()
    program = shutil.which("runsc")
    assert program, "runsc is missing: scripts/tools.sh installs it"
    # What works also where cgroups cannot be given away and bridges not be used, as in a machine for tests.
    arguments = ["--network=none", "--ignore-cgroups"]
    wrapper = home / "runsc-for-tests"
    wrapper.write_text(f'#!/bin/sh\nexec {program} {" ".join(arguments)} "$@"\n')
    wrapper.chmod(0o755)
    runtimes = {
        "runsc": {"path": str(wrapper)},
        "careless": {"path": program, "runtimeArgs": arguments},
        "bounded": {"path": program, "runtimeArgs": arguments[:1]},
    }
    (home / "daemon.json").write_text(json.dumps({"runtimes": runtimes}))
    with dockerd(home, "--config-file", home / "daemon.json") as port:
        client = docker.DockerClient(base_url=f"tcp://127.0.0.1:{port}", version="1.40", timeout=30)
        provide(client, home)
        client.close()
        yield f"tcp://127.0.0.1:{port}"


@pytest.fixture
def tls_environment(tls: Tls, monkeypatch: pytest.MonkeyPatch) -> Tls:
    """With our certificates in the environment, as for the docker command."""
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tls.certificates))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", requests.certs.where())  # for other servers
    return tls


@pytest.fixture(scope="session")
def sshd(folder: Path) -> Iterator[Ssh]:
    home = folder / "ssh"
    home.mkdir()
    for name in ("host", "mine"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / name)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    locked = Path("/etc/shadow").read_text().startswith("root:!")  # sshd alone refuses such a user, PAM does not
    (home / "known").write_text(f"[127.0.0.1]:{port} {(home / 'host.pub').read_text()}")
    (home / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {home}/host\nAuthorizedKeysFile {home}/mine.pub\nPidFile none\n"
        f"StrictModes no\nUsePAM {'yes' if locked else 'no'}\nPasswordAuthentication no\n"
    )
    (home / "config").write_text(
        f"IdentityFile {home}/mine\nIdentitiesOnly yes\nUserKnownHostsFile {home}/known\nStrictHostKeyChecking yes\n"
    )
    (home / "bin").mkdir()  # what the user has in ~/.ssh; ssh takes no folder of another home from the environment
    (home / "bin" / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {home}/config "$@"\n')
    (home / "bin" / "ssh").chmod(0o755)
    Path("/run/sshd").mkdir(exist_ok=True)  # what sshd locks its unprivileged process into
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")), "-D", "-e", "-f", home / "sshd_config"],
            stdin=subprocess.DEVNULL,
            stderr=log,
        )

    def answers() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
            return True
        return False

    try:
        until(f"sshd does not answer: {(home / 'log').read_text()}", answers)
        yield Ssh(f"ssh://{getpass.getuser()}@127.0.0.1:{port}", str(home / "bin"))
    finally:
        end(process)


@pytest.fixture
def ssh_environment(sshd: Ssh, monkeypatch: pytest.MonkeyPatch) -> Ssh:
    """With a key that the other machine knows."""
    monkeypatch.setenv("PATH", f"{sshd.programs}:{os.environ['PATH']}")
    return sshd
