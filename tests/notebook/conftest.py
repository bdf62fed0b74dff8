"""What the notebook tests share: a kernel, and a web server with a real JPEG in a container of its own."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Iterator

import docker
import pytest
from kernels import Kernel, sandbox_kernel
from PIL import Image

SECONDS = 900  # the server ends by itself, also when the tests are killed


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One kernel for a module; every test leaves its default sandbox and its shell alive."""
    with sandbox_kernel(tmp_path_factory.mktemp("kernel")) as kernel:
        kernel.ok("%%sandbox\ntrue")
        yield kernel


@pytest.fixture(scope="session")
def avatar_url() -> Iterator[str]:
    """The address of a JPEG of 640 x 480, as a sandbox that is online reaches it."""
    client = docker.from_env()
    server = client.containers.create(
        "busybox:latest",
        ["timeout", str(SECONDS), "httpd", "-f", "-p", "80", "-h", "/www"],
        auto_remove=True,
        init=True,
        labels={"sandbox-magic-test": "1"},
    )
    try:
        server.put_archive("/", _archive("www/avatar.jpg", _avatar()))
        server.start()
        deadline = time.monotonic() + 20
        while server.exec_run(["wget", "-q", "-O", "/dev/null", "http://127.0.0.1/avatar.jpg"]).exit_code != 0:
            assert time.monotonic() < deadline, "the web server does not answer"
            time.sleep(0.05)
        server.reload()
        yield f"http://{server.attrs['NetworkSettings']['Networks']['bridge']['IPAddress']}/avatar.jpg"
    finally:
        server.remove(force=True)
        client.close()


def _avatar() -> bytes:
    """Return a JPEG with a comment, which the conversion must remove: a picture in two colour gradients."""
    picture = Image.merge(
        "RGB", [Image.linear_gradient("L"), Image.radial_gradient("L"), Image.new("L", (256, 256), 90)]
    )
    stream = io.BytesIO()
    picture.resize((640, 480)).save(stream, "JPEG", quality=90, comment=b"taken at home")
    return stream.getvalue()


def _archive(name: str, data: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for folder in name.split("/")[:-1]:
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(data), 0o644
        archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()
