"""The network by name with what people use: apt, pip, npm, git, curl and wget, against servers of ours."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import ssl
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sandbox_magic import InvalidOptions, Sandbox

NAME = "packages.example"
TRUST = ("CURL_CA_BUNDLE", "SSL_CERT_FILE", "GIT_SSL_CAINFO", "PIP_CERT", "NODE_EXTRA_CA_CERTS")


class Files(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def command(*words: str, cwd: Path) -> None:
    subprocess.run(words, cwd=cwd, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the servers serve: an index of pip's, one of npm's, a git repository, a file; and their certificate."""
    top = tmp_path_factory.mktemp("served")
    (top / "hello.txt").write_text("hello\n")
    (top / "simple/tiny").mkdir(parents=True)
    (top / "simple/tiny/index.html").write_text('<a href="tiny-1-py3-none-any.whl">tiny-1-py3-none-any.whl</a>')
    with zipfile.ZipFile(top / "simple/tiny/tiny-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "")
        wheel.writestr("tiny-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1\n")
        wheel.writestr("tiny-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tiny-1.dist-info/RECORD", "")
    (top / "package.json").write_text('{"name": "tiny", "version": "1.0.0"}')
    with tarfile.open(top / "tiny.tgz", "w:gz") as archive:
        archive.add(top / "package.json", "package/package.json")
    command("git", "init", "-q", "-b", "main", "work", cwd=top)
    command("git", "-c", "user.name=x", "-c", "user.email=x@y", "commit", "-q", "--allow-empty", "-m", "first",
            cwd=top / "work")  # fmt: skip
    command("git", "clone", "-q", "--bare", "work", "tiny.git", cwd=top)
    command("git", "update-server-info", cwd=top / "tiny.git")
    command("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={NAME}",
            "-addext", f"subjectAltName=DNS:{NAME}", "-keyout", "key.pem", "-out", "cert.pem", cwd=top)  # fmt: skip
    return top


@pytest.fixture(scope="module")
def ports(folder: Path) -> Iterator[tuple[int, int]]:
    """The port with TLS and the one without."""
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Files, directory=str(folder))) for _ in "12"]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    servers[0].socket = context.wrap_socket(servers[0].socket, server_side=True, do_handshake_on_connect=False)
    for server in servers:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield servers[0].server_address[1], servers[1].server_address[1]
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def box(folder: Path, ports: tuple[int, int]) -> Iterator[Sandbox]:
    """One with this machine's programs, that knows the certificate."""
    names = [f"{NAME}@127.0.0.1:{port}" for port in ports]
    with Sandbox(engine="bubblewrap", network=names, env=dict.fromkeys(TRUST, "/work/cert.pem")) as made:
        made.put(folder / "cert.pem", "/work/")
        yield made


def test_curl_and_wget(box: Sandbox, ports: tuple[int, int]) -> None:
    for url in (f"https://{NAME}:{ports[0]}/hello.txt", f"http://{NAME}:{ports[1]}/hello.txt"):
        assert box.run(f"curl -sS {url}", timeout=60).output == "hello\n"
        wget = box.run(f"wget -q -O - --ca-certificate=/work/cert.pem {url}", timeout=60)
        assert wget.output == "hello\n"
    refused = box.run("curl -sS https://other.example/", timeout=60)
    assert refused.exit_code != 0 and "403" in refused.stderr


@pytest.mark.skipif(not Path("/usr/lib/python3/dist-packages/pip").exists(), reason="pip is not in /usr here")
def test_pip(box: Sandbox, ports: tuple[int, int]) -> None:
    pip = f"/usr/bin/python3 -m pip download -q --no-cache-dir --index-url https://{NAME}:{ports[0]}/simple/"
    box.run(f"cd /work && {pip} tiny && ls tiny-1-py3-none-any.whl", timeout=100, check=True)


@pytest.mark.skipif(shutil.which("npm", path="/usr/bin") is None, reason="npm is not among the programs of /usr here")
def test_npm(box: Sandbox, folder: Path, ports: tuple[int, int]) -> None:
    server = f"https://{NAME}:{ports[0]}"
    dist = {
        "tarball": f"{server}/tiny.tgz",
        "shasum": hashlib.sha1((folder / "tiny.tgz").read_bytes(), usedforsecurity=False).hexdigest(),
    }
    version = {"name": "tiny", "version": "1.0.0", "dist": dist}
    packument = {"name": "tiny", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
    (folder / "tiny").write_text(json.dumps(packument))
    npm = f"npm install --registry {server}/ --cafile /work/cert.pem --fetch-retries 0 --no-audit --cache /tmp/npm tiny"
    box.run(f"mkdir -p /work/n && cd /work/n && {npm} && ls node_modules/tiny/package.json", timeout=110, check=True)


def test_git(box: Sandbox, ports: tuple[int, int]) -> None:
    said = box.run(
        f"cd /work && git clone -q https://{NAME}:{ports[0]}/tiny.git && git -C tiny log --oneline", timeout=60
    )
    assert said.exit_code == 0 and "first" in said.stdout, said.output


def test_jobs_have_it_too(box: Sandbox, ports: tuple[int, int]) -> None:
    job = box.start_job(f"curl -sS https://{NAME}:{ports[0]}/hello.txt")
    assert job.wait(60).output == "hello\n"


# What most packages with a service do when they are set up.
POSTINST = (
    "printf '#!/bin/sh\\nuseradd --system --user-group tiny && install -d -o tiny -g tiny -m 750 /var/lib/tiny\\n' "
    ">/tmp/p/DEBIAN/postinst && chmod 755 /tmp/p/DEBIAN/postinst"
)


def test_apt(folder: Path, ports: tuple[int, int]) -> None:
    """apt asks its proxy in another form than for a tunnel; nothing but perl-base is in the image for it."""
    control = "Package: tiny\nVersion: 1\nArchitecture: all\nMaintainer: x <x@y>\nDescription: x\n"
    with Sandbox(engine="docker", network=[f"{NAME}@127.0.0.1:{ports[1]}"]) as box:
        control_file = f"mkdir -p /tmp/p/DEBIAN && printf '{control}' >/tmp/p/DEBIAN/control"
        build = f"{control_file} && {POSTINST} && dpkg-deb -b /tmp/p /work/tiny.deb"
        box.run(build, check=True)
        (deb,) = box.get("/work/tiny.deb", folder)
        packages = f"{control}Filename: tiny.deb\nSize: {deb.stat().st_size}\n"
        packages += f"SHA256: {hashlib.sha256(deb.read_bytes()).hexdigest()}\n"
        (folder / "Packages").write_text(packages)
        box.run("rm -rf /etc/apt/sources.list* /var/lib/apt/lists/*", check=True)
        box.run(f"echo 'deb [trusted=yes] http://{NAME}:{ports[1]}/ ./' >/etc/apt/sources.list")
        box.run("apt-get update && apt-get install -y tiny && dpkg -s tiny", timeout=100, check=True)
        assert box.run("stat -c %U:%G:%a /var/lib/tiny").stdout == "tiny:tiny:750\n", "with five capabilities"
        assert box.status()["network interfaces"] == "lo"
        assert {access.name for access in box.network_log} == {NAME}


def test_names_come_and_go(folder: Path, ports: tuple[int, int]) -> None:
    """Allowed later, for one run, denied, and after a fresh start: what is in force is what was last said."""
    url = f"http://{NAME}:{ports[1]}/hello.txt"
    look = f"curl -sS --fail {url}"
    name = f"{NAME}@127.0.0.1:{ports[1]}"
    with Sandbox(engine="bubblewrap") as box:
        assert "Could not resolve" in box.run(look).stderr
        assert box.run(look, network=[name], timeout=60).stdout == "hello\n"
        assert "403" in box.run(look, timeout=60).stderr
        box.allow(name)
        assert box.run(look, timeout=60).stdout == "hello\n"
        assert box.status()["may reach"] == [name]
        box.deny(name)
        assert "403" in box.run(look, timeout=60).stderr
        assert [access.allowed for access in box.network_log] == [True, False, True, False]
        box.run("exit 1")
        assert "HTTP_PROXY=http" in box.run("env").stdout, "a new shell knows of it too"
        box.reset()
        assert "Could not resolve" in box.run(look).stderr and box.network_log == ()


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_online_cells_reach_everything_for_their_time(engine: str) -> None:
    with Sandbox("debian:stable-slim", engine=engine, network=["a.example"]) as box:
        probe = "cat /proc/net/dev"
        assert "eth" not in box.run(probe).stdout
        assert "eth" in box.run(probe, network=True).stdout
        assert "eth" not in box.run(probe).stdout
        assert box._network.gate.online is False


def test_podman_can_have_names_later() -> None:
    with Sandbox("debian:stable-slim", engine="podman") as box:
        box.allow("a.example")
        assert "http_proxy=" in box.run("env").stdout
        assert box._network._relay is not None and box._network._relay.alive


def test_an_image_without_a_listener_is_refused_in_one_sentence() -> None:
    with pytest.raises(InvalidOptions, match="perl or python3"):
        Sandbox("busybox", engine="docker", network=["a.example"]).start()
    with Sandbox("busybox", engine="docker") as box:
        with pytest.raises(InvalidOptions, match="perl or python3"):
            box.allow("a.example")
        with pytest.raises(InvalidOptions, match="perl or python3"):
            box.run("true", network=["a.example"])
        assert box.run("echo still here", check=True).stdout == "still here\n"


def test_bubblewrap_cannot_be_online_but_says_what_can() -> None:
    with Sandbox(engine="bubblewrap") as box, pytest.raises(InvalidOptions, match="name what it may reach"):
        box.run("true", network=True)
