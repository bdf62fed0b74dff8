"""What is mounted: sources that would open the wall, by every name they have; and read-only, seen from inside."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tries import Breach, Try, call

from sandbox_magic import InvalidOptions, Mount, Sandbox, SandboxSpec
from sandbox_magic.engines import find_engine, traces

ENGINES = ["docker", "podman", "bubblewrap"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of this machine that users of a sandbox may enter; pytest's own they may not."""
    with tempfile.TemporaryDirectory(prefix="sandbox-mount-", dir="/var/tmp") as name:
        Path(name).chmod(0o777)
        yield Path(name)


@contextlib.contextmanager
def bound(source: str | Path, target: Path, *options: str) -> Iterator[Path]:
    """Show a file or folder under a second name, as only root can."""
    subprocess.run(["mount", *(options or ("--bind",)), source, target], check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", "-l", target], check=True)


def refuse(source: str | Path, *, why: str = "is refused: ") -> None:
    with contextlib.suppress(InvalidOptions):
        Sandbox(mounts=[f"{source}:/data"])
        raise Breach(source)
    with pytest.raises(InvalidOptions, match=why):
        Sandbox(mounts=[f"{source}:/data"])


SOURCES = [
    *("/", "//", "/usr/..", "/etc", "/etc/.", "/etc/ssh/../", "/home", "/root", "/var", "/var/lib", "/run", "/usr"),
    "/boot",
    *("/proc", "/proc/self/root", "/proc/1/root", "/proc/self/cwd/../../../..", "/proc/sys/kernel", "/proc/self/fd"),
    *("/sys", "/sys/fs/cgroup", "/sys/kernel", "/dev", "/dev/shm", "/dev/null", "/dev/pts", "/tmp", "/var/tmp", "~"),
    *("/var/run/docker.sock", "/run/docker.sock", "/run/podman/podman.sock", "/run/podman", "/var/run/podman"),
    *("/var/lib/docker", "/var/lib/docker/overlay2", "/var/lib/containers", "/run/docker", "/run/sandbox-magic"),
]  # fmt: skip


@pytest.mark.parametrize(
    "source", [pytest.param(path, marks=pytest.mark.attack("mounted sources", f"mount {path}")) for path in SOURCES]
)
def test_a_source_that_opens_the_wall(source: str) -> None:
    traces.home()  # it is made by the first sandbox
    refuse(source, why="mount: ")  # also what is not on this machine


@pytest.mark.attack("mounted sources", "the engine's socket by a symbolic link, and a folder of such links")
def test_the_socket_by_a_link(folder: Path) -> None:
    (folder / "a").symlink_to("/var/run/docker.sock")
    (folder / "b").symlink_to(folder / "a")
    (folder / "c").symlink_to("/var/run")
    refuse(folder / "a")
    refuse(folder / "b")
    refuse(folder / "c")
    refuse(folder / "c" / "docker.sock")


@pytest.mark.attack("mounted sources", "the engine's socket by a hard link, or a socket of anybody")
def test_a_socket_by_another_name(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "engine"))
        os.link(folder / "engine", folder / "harmless.txt")
        refuse(folder / "engine")
        refuse(folder / "harmless.txt")


@pytest.mark.attack("mounted sources", "the folder that an engine's socket lies in, wherever DOCKER_HOST says that is")
def test_the_folder_of_a_socket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "deep" / "er").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "deep" / "er" / "engine"))
        Mount(str(folder), "/data")
        for name in ("DOCKER_HOST", "CONTAINER_HOST"):
            with monkeypatch.context() as patch:
                patch.setenv(name, f"unix://{folder}/deep/er/engine")
                refuse(folder)
                refuse(folder / "deep" / "er")
        spec = SandboxSpec(
            mounts=(Mount(str(folder), "/data"),), docker_host=f"unix://{folder}/deep/er/engine", engine="docker"
        )
        with pytest.raises(InvalidOptions, match="is refused"):
            find_engine(spec).check(spec)


@pytest.mark.attack("mounted sources", "the folder of an ssh agent, of a session bus, of Jupyter's connection files")
def test_the_folder_of_an_agent(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "of" / "agents").mkdir(parents=True)
    (folder / "of" / "agents" / "1").touch()
    for name, value in (
        ("SSH_AUTH_SOCK", f"{folder}/of/agents/1"),
        ("DBUS_SESSION_BUS_ADDRESS", f"unix:path={folder}/of/agents/1"),
        ("JUPYTER_RUNTIME_DIR", f"{folder}/of/agents"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            refuse(folder / "of")


@pytest.mark.attack("mounted sources", "a folder that the home folder lies in")
def test_above_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "users" / "me" / "project").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder / "users" / "me"))
    refuse(folder / "users" / "me")
    refuse(folder / "users")
    refuse(folder)
    Mount(str(folder / "users" / "me" / "project"), "/data")


ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can mount")


@ROOT
@pytest.mark.parametrize(
    "source", ["/", "/etc", "/proc", "/sys", "/dev", "/run", "/var/lib/docker", "/run/docker.sock"]
)
@pytest.mark.attack("mounted sources", "a bind mount of what is refused, under a harmless name")
def test_by_a_bind_mount(folder: Path, source: str) -> None:
    alias = folder / "harmless"
    alias.touch() if Path(source).is_socket() else alias.mkdir()
    with bound(source, alias):
        refuse(alias)
        refuse(folder, why="is mounted in it")


@ROOT
@pytest.mark.attack("mounted sources", "another proc, mounted under a harmless name")
def test_another_proc(folder: Path) -> None:
    (folder / "p").mkdir()
    with bound("proc", folder / "p", "-t", "proc"):
        refuse(folder / "p")
        refuse(folder / "p" / "sys")
        refuse(folder, why="is mounted in it")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.attack("mounted folders", "replace a mounted folder by a link to /etc, then have the sandbox started anew")
def test_a_source_that_was_swapped(folder: Path, engine: str) -> None:
    (folder / "sub").mkdir()
    (folder / "sub").chmod(0o777)
    with Sandbox(engine=engine, mounts=[f"{folder}:/data:rw", f"{folder}/sub:/sub"]) as box:
        box.run("mv /data/sub /data/moved && ln -s /etc /data/sub", check=True)
        with pytest.raises(InvalidOptions, match="not what it was"):
            box.reset()
    with pytest.raises(InvalidOptions, match="/etc is refused"):
        Sandbox(engine=engine, mounts=[f"{folder}/sub:/sub"])


@pytest.fixture(scope="module")
def shown() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sandbox-mount-", dir="/var/tmp") as name:
        top = Path(name)
        (top / "shown" / "deep").mkdir(parents=True)
        (top / "shown" / "deep" / "file").write_text("as it was")
        (top / "beside").write_text("as it was")
        for path in (top, *top.rglob("*")):
            path.chmod(0o777)
        yield top / "shown"


@pytest.fixture(scope="module", params=[(engine, profile) for engine in ENGINES for profile in ("sealed", "standard")],
                ids="-".join)  # fmt: skip
def mounted(request: pytest.FixtureRequest, shown: Path) -> Iterator[Sandbox]:
    engine, profile = request.param
    with Sandbox(engine=engine, profile=profile, mounts=[f"{shown}:/data"]) as box:
        assert box.run("cat /data/deep/file").stdout == "as it was"
        yield box


READ_ONLY = [
    Try("mounted folders", "write a read-only file", "echo x >/data/deep/file"),
    Try("mounted folders", "append to a read-only file", "echo x >>/data/deep/file"),
    Try("mounted folders", "make a file in a read-only folder", ": >/data/new"),
    Try("mounted folders", "remove a read-only file", "rm -f /data/deep/file"),
    Try("mounted folders", "rename a read-only file", "mv /data/deep/file /data/deep/moved"),
    Try("mounted folders", "change the mode of a read-only file", "chmod 4777 /data/deep/file"),
    Try("mounted folders", "change the owner of a read-only file", "chown 0:0 /data/deep/file"),
    Try("mounted folders", "change the times of a read-only file", "touch /data/deep/file"),
    Try("mounted folders", "make a link in a read-only folder", "ln -s /etc /data/link"),
    Try("mounted folders", "make a device in a read-only folder", "mknod /data/null c 1 3"),
    Try("mounted folders", "make a read-only mount writable", call("mount", '"x"', '"/data"', '""', 4096 | 32, 0)),
    Try("mounted folders", "write by way of an open descriptor", "exec 5</data/deep/file; echo x >/proc/self/fd/5"),
    Try("mounted folders", "leave a mounted folder upwards", "cat /data/../beside", "No such"),
    Try("mounted folders", "take a mount away", call("umount2", '"/data"', 2)),
]


@pytest.mark.parametrize(
    "attempt", [pytest.param(a, marks=pytest.mark.attack(a.group, a.what), id=str(n)) for n, a in enumerate(READ_ONLY)]
)
def test_read_only(mounted: Sandbox, shown: Path, attempt: Try) -> None:
    attempt.run(mounted)
    assert sorted(path.name for path in shown.rglob("*")) == ["deep", "file"]
    assert (shown / "deep" / "file").read_text() == "as it was"


@ROOT
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.attack("mounted folders", "write to what is mounted below a read-only folder")
def test_mounts_below_a_read_only_one(folder: Path, engine: str) -> None:
    (folder / "below").mkdir()
    with bound("tmpfs", folder / "below", "-t", "tmpfs"):
        with Sandbox(engine=engine, mounts=[f"{folder}:/data"]) as box:
            result = box.run("echo x >/data/below/new || echo refused")
        if list((folder / "below").iterdir()):
            raise Breach(result.output)
        assert "refused" in result.stdout


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.attack("mounted folders", "leave a program with the rights of root in a writable folder", bounded=True)
def test_what_a_writable_folder_is_given(folder: Path, engine: str) -> None:
    """That files come out is what `rw` is for; where the sandbox is root, that includes files of root's: it is said."""
    with Sandbox(engine=engine, profile="sealed", mounts=[f"{folder}:/data:rw"]) as box:
        box.run("cp /bin/true /data/run && chmod 4755 /data/run; ln -s /etc/passwd /data/link; mkfifo /data/fifo")
        made = folder / "run"
        assert made.stat().st_uid != 0, "a set-user-id program of root's"
        assert shutil.which("true")
