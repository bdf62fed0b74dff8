"""Docker on another machine: what a local one promises, and an end that nobody has to notice."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from gate import Gate
from machines import IMAGE, Ssh, Tls, authority, until

from sandbox_magic import CommandTimeout, EngineUnavailable, Sandbox
from sandbox_magic.engines import find_engine
from sandbox_magic.engines.docker import DockerEngine


@pytest.fixture(params=["tls", "ssh"])
def host(request: pytest.FixtureRequest) -> str:
    """The address of an engine on another machine."""
    return str(request.getfixturevalue(f"{request.param}_environment").url)


def ids(host: str) -> list[str]:
    return [found.id for found in find_engine(Sandbox(docker_host=host).spec).found()]


def test_a_sandbox_there_is_as_one_here(host: str, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "data").write_bytes(data)
    with Sandbox(IMAGE, docker_host=host) as box:
        assert box._machine is not None
        ident = box._machine.id
        assert box.run("echo out; echo err >&2; exit 3").exit_code == 3
        assert (box.last.stdout, box.last.stderr) == ("out\n", "err\n")
        box.put(tmp_path / "data", "/work/")
        assert box.run("cat data").stdout_bytes == data
        box.get("data", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == data
        timer = threading.Timer(0.5, box.interrupt)
        timer.start()
        box.run("here=yes; sleep 60")
        assert box.last.interrupted
        with pytest.raises(CommandTimeout):
            box.run("sleep 60", timeout=0.5)
        assert box.run("echo $here").stdout == "yes\n"
        assert box.run("(sleep 0.3; echo late) &").exit_code == 0
        until("no late output", lambda: b"late" in b"".join(output.data for output in box.late_output()))
        assert ident in ids(host)
    assert ident not in ids(host)


@pytest.mark.parametrize("how", ["end", "sigkill"])
def test_nothing_there_outlives_the_owner(host: str, how: str) -> None:
    program = f"""
import time
from sandbox_magic import Sandbox
box = Sandbox({IMAGE!r}, docker_host={host!r}).start()
print(box._machine.id, flush=True)
time.sleep(100 if {how!r} == "sigkill" else 0)
"""
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    ident = owner.stdout.readline().decode().strip()
    assert len(ident) == 64
    if how == "sigkill":
        owner.kill()
    owner.wait()
    owner.stdout.close()
    until("the sandbox outlived its owner", lambda: ident not in ids(host), 30)


def test_ssh_ends_with_its_owner_and_leaves_no_file(ssh_environment: Ssh, tmp_path: Path) -> None:
    program = f"""
import time
from sandbox_magic import Sandbox
from sandbox_magic.engines import find_engine
box = Sandbox({IMAGE!r}, docker_host={ssh_environment.url!r}).start()
print(find_engine(box.spec)._connection.tunnel._process.pid, flush=True)
time.sleep(100)
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment)
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "socket").stat().st_mode & 0o777 == 0o600
    owner.kill()
    owner.wait()
    owner.stdout.close()
    until("ssh outlived its owner", lambda: not Path(f"/proc/{pid}").exists(), 30)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # the SDK leaves sockets that were refused
def test_a_lost_ssh_is_said_and_the_next_cell_connects_again(ssh_environment: Ssh) -> None:
    with Sandbox(IMAGE, docker_host=ssh_environment.url) as box:
        box.run("echo x >/tmp/x")
        connection = find_engine(box.spec)._connection
        os.killpg(connection.tunnel._process.pid, signal.SIGKILL)
        until("ssh did not end", lambda: connection.lost)
        time.sleep(0.5)  # the ends of the streams are noticed a moment later
        result = box.run("cat /tmp/x")
        assert result.exit_code != 0
        assert any("sandbox had ended" in note for note in result.notes)
    gc.collect()


def test_ssh_that_cannot_connect_says_why(ssh_environment: Ssh) -> None:
    for url, words in (
        (ssh_environment.url.replace("root@", "nobody@"), "Permission denied"),
        ("ssh://127.0.0.1:1", "Connection refused"),
        ("ssh://-oProxyCommand=false", "not an address"),
        (ssh_environment.url + "/no/such.sock", "no Docker Engine answers"),
    ):
        with pytest.raises(EngineUnavailable, match=words):
            DockerEngine(url).connect()


def test_who_has_no_certificate_is_refused(tls: Tls) -> None:
    with pytest.raises(EngineUnavailable, match="no Docker Engine answers"):
        DockerEngine(tls.url).connect()


def test_a_server_with_another_certificate_is_refused(
    tls: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority(tmp_path / "other")
    for name in ("cert.pem", "key.pem"):
        (tmp_path / "other" / name).write_bytes((tls.certificates / name).read_bytes())
    monkeypatch.setenv("DOCKER_CERT_PATH", str(tmp_path / "other"))
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    with pytest.raises(EngineUnavailable, match="certificate verify failed"):
        DockerEngine(tls.url).connect()


def test_a_context_brings_its_certificates(tls: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {**os.environ, "DOCKER_CONFIG": str(tmp_path)}
    environment.pop("DOCKER_HOST", None)
    folder = tls.certificates
    endpoint = f"host={tls.url},ca={folder}/ca.pem,cert={folder}/cert.pem,key={folder}/key.pem"
    subprocess.run(
        ["docker", "context", "create", "there", "--docker", endpoint], env=environment, check=True, capture_output=True
    )
    (tmp_path / "config.json").write_text("{}")
    program = f"""
from sandbox_magic import Sandbox
from sandbox_magic.engines import find_engine
with Sandbox({IMAGE!r}, engine="docker") as box:
    print(box.run("echo ran", check=True).stdout + find_engine(box.spec).endpoint)
"""
    told = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "DOCKER_CONTEXT": "there"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert told.stdout == f"ran\n{tls.url} (context 'there')\n"


WHAT = ("IDLE", "INTVL", "CNT")


def test_a_cut_link_ends_the_sandbox_within_its_lease(tls_environment: Tls) -> None:
    tls = tls_environment
    link = Gate(tls.port)
    box = Sandbox(IMAGE, docker_host=link.url, lease=3)
    try:
        box.start()
        assert box._machine is not None
        ident = box._machine.id
        time.sleep(5)
        assert ident in tls.containers(), "renewed over the link"
        link.cut.set()
        until("the lease did not end the sandbox", lambda: ident not in tls.containers(), 30)
    finally:
        link.close()
        with suppress(EngineUnavailable):  # nobody is there, but our own ends are closed
            box.close()


def test_a_lost_link_is_noticed_by_the_system_too(tls_environment: Tls) -> None:
    with Sandbox(IMAGE, docker_host=tls_environment.url) as box:
        assert box._machine is not None
        transport = box._machine.open(["cat"])
        for sock in (transport._sock, box._machine._keeper):
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            seconds = [sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_KEEP{what}")) for what in WHAT]
            assert seconds == [30, 10, 3]
        transport.close()


def test_far_sandboxes_have_a_lease_by_themselves(host: str) -> None:
    engine = find_engine(Sandbox(docker_host=host).spec)
    engine.connect()
    assert engine.lease(Sandbox().spec) == 900
    assert engine.lease(Sandbox(lease=5).spec) == 5


def test_a_context_that_is_not_there_is_no_other_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONTEXT", "nowhere")
    with pytest.raises(EngineUnavailable, match="nowhere"):
        DockerEngine().connect()
