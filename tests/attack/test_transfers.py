"""Files in and out while the sandbox changes them: each real, with the swapping done inside."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tar_corpus import snapshot
from tries import Breach, perl

from sandbox_magic import Sandbox, TransferError
from sandbox_magic.engines.body import open_folder
from sandbox_magic.engines.docker import DockerMachine
from sandbox_magic.testing.host import until

ENGINES = ["docker", "podman", "bubblewrap"]
SECRET = "the host's secret"

# Swaps a folder and a file for links to what is outside, and back, as fast as it can, until the file `stop` is there.
SWAP = perl(
    "chdir q(/data/tree) or die; until (-e q(/data/stop)) { "
    "rename q(d), q(d.real); symlink q(OUTSIDE), q(d); unlink q(d); rename q(d.real), q(d); "
    "rename q(f), q(f.real); symlink q(OUTSIDE/secret), q(f); unlink q(f); rename q(f.real), q(f) }"
)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that is writable inside, beside one that is not inside at all."""
    with tempfile.TemporaryDirectory(prefix="sandbox-race-", dir="/var/tmp") as name:
        top = Path(name)
        (top / "outside").mkdir()
        (top / "outside" / "secret").write_text(SECRET)
        (top / "shared" / "tree" / "d").mkdir(parents=True)
        (top / "shared" / "tree" / "d" / "secret").write_text("harmless")
        (top / "shared" / "tree" / "f").write_text("harmless")
        for path in (top, *top.rglob("*")):
            path.chmod(0o777)
        yield top / "shared"


@contextlib.contextmanager
def swapping(engine: str, shared: Path) -> Iterator[Sandbox]:
    with Sandbox(engine=engine, mounts=[f"{shared}:/data:rw"]) as box:
        job = box.start_job(SWAP.replace("OUTSIDE", str(shared.parent / "outside")))
        try:
            yield box
        finally:
            (shared / "stop").touch()
            assert job.wait(90).exit_code == 0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.attack("transfers", "swap the target of a get for a link to elsewhere, over and over, while it is written")
def test_a_target_that_is_swapped(shared: Path, engine: str) -> None:
    before = snapshot(shared.parent / "outside")
    with swapping(engine, shared) as box:
        box.run(
            "mkdir -p /tmp/d/e; for i in 1 2 3 4 5 6 7 8; do head -c 100000 /dev/urandom >/tmp/d/e/$i; done", check=True
        )
        for _ in range(6):
            with contextlib.suppress(TransferError):
                box.get("/tmp/d", shared / "tree")
            if (after := snapshot(shared.parent / "outside")) != before:
                raise Breach(after)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.attack("transfers", "swap a file and a folder that are put for links to a secret, while they are read")
def test_a_source_that_is_swapped(shared: Path, engine: str) -> None:
    with swapping(engine, shared) as box:
        for _ in range(6):
            with contextlib.suppress(TransferError):
                box.put(shared / "tree", "/tmp/put")
            if SECRET in (found := box.run("cat /tmp/put/f* /tmp/put/d*/* 2>/dev/null; rm -rf /tmp/put").stdout):
                raise Breach(found)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.attack("transfers", "leave links in a writable folder, which then a put reads and a get writes by")
def test_links_that_wait_in_a_shared_folder(shared: Path, engine: str) -> None:
    """The user names a file of his folder, which the sandbox has replaced meanwhile."""
    outside = shared.parent / "outside"
    before = snapshot(outside)
    with Sandbox(engine=engine, mounts=[f"{shared}:/data:rw"]) as box:
        box.run(f"cd /data; rm -r tree/f; ln -s {outside}/secret tree/f; ln -s {outside} out; ln -s .. up", check=True)
        box.run("echo evil >/tmp/new; mkdir /tmp/folder; echo evil >/tmp/folder/secret", check=True)
        for source in ("tree/f", "out/secret", "out", "up/outside/secret"):
            with pytest.raises(TransferError, match="which a sandbox may have made"):
                box.put(shared / source, "/tmp/put")
        for source, target in (("new", "out/new"), ("new", "up/outside"), ("folder", "up/outside/folder")):
            with pytest.raises(TransferError, match="link"):
                box.get(f"/tmp/{source}", shared / target)
        box.put(shared / "tree" / "d", "/tmp/put")
        if SECRET in (found := box.run("cat /tmp/put/*").stdout) or snapshot(outside) != before:
            raise Breach(found)
        assert found == "harmless"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.attack("transfers", "put to where links lead out: nothing of this machine is written")
def test_a_put_that_is_redirected(shared: Path, engine: str, tmp_path: Path) -> None:
    (tmp_path / "new").write_text("new")
    before = snapshot(shared.parent / "outside")
    outside = shared.parent / "outside"
    with Sandbox(engine=engine) as box:
        box.run(f"ln -s {outside} /work/a; ln -s /proc/1/root{outside} /work/b; ln -s /proc/1/cwd /work/c", check=True)
        for name in "abc":
            with contextlib.suppress(TransferError):
                box.put(tmp_path / "new", f"/work/{name}/secret")
        if snapshot(outside) != before:
            raise Breach(outside)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.attack("transfers", "get by way of links that lead out of the sandbox")
def test_a_get_that_is_redirected(shared: Path, engine: str, tmp_path: Path) -> None:
    outside = shared.parent / "outside"
    with Sandbox(engine=engine) as box:
        box.run(f"ln -s {outside} /work/a; ln -s /proc/1/root{outside} /work/b; ln -s /proc/self/root{outside} /work/c")
        for source in ("a/secret", "b/secret", "c/secret", f"/proc/1/root{outside}/secret", f"/../..{outside}/secret"):
            with pytest.raises(TransferError):
                box.get(source, tmp_path)
    if found := list(tmp_path.iterdir()):
        raise Breach(found)


@pytest.mark.parametrize("kind", ["link", "fifo", "socket", "link to a folder"])
@pytest.mark.attack("transfers", "put a folder that holds links, fifos or sockets")
def test_a_hostile_tree_is_not_put(tmp_path: Path, kind: str) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        match kind:
            case "link":
                (tree / "x").symlink_to("/etc/passwd")
            case "link to a folder":
                (tree / "x").symlink_to("/etc")
            case "fifo":
                os.mkfifo(tree / "x")
            case "socket":
                listener.bind(str(tree / "x"))
        with Sandbox(engine="bubblewrap") as box:
            with pytest.raises(TransferError, match=r"'.*x' is"):
                box.put(tree, "/work/")
            if found := box.run("ls /work").stdout:
                raise Breach(found)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.attack("transfers", "special files in a folder that is got: fifos, hard links, set-user-id programs")
def test_special_files_are_not_got(engine: str, tmp_path: Path) -> None:
    with Sandbox(engine=engine) as box:
        box.run(
            "cd /work; mkdir a b c; mkfifo a/x; cp /bin/true b/x; chmod 6755 b/x; ln b/x b/y; mknod c/x c 1 3",
            check=False,
        )
        box.run(perl("use Socket; socket(S, AF_UNIX, SOCK_STREAM, 0); bind(S, pack_sockaddr_un(q(/work/c/s))) or die"))
        with pytest.raises(TransferError, match="fifo"):
            box.get("a", tmp_path)
        with pytest.raises(TransferError):  # hard links: a name for what is elsewhere
            box.get("b", tmp_path)
        box.run("rm b/y", check=True)
        box.get("b", tmp_path)
        assert (tmp_path / "b" / "x").stat().st_mode & 0o7000 == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b"]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.attack("transfers", "a sparse file of 8 GB, to fill the disk here")
def test_a_sparse_file(engine: str, tmp_path: Path) -> None:
    with Sandbox(engine=engine) as box:
        box.run("truncate -s 8G /work/big || truncate -s 8G /tmp/big", check=True)
        free = shutil.disk_usage(tmp_path).free
        with pytest.raises(TransferError):
            box.get("/work/big" if box.run("[ -e /work/big ]").exit_code == 0 else "/tmp/big", tmp_path)
        assert list(tmp_path.iterdir()) == []
        assert free - shutil.disk_usage(tmp_path).free < 2 << 30


def test_the_engines_own_copying_is_not_used(tmp_path: Path) -> None:
    """It works as root on this machine, in a tree that a sandbox changes; the engine tells when it does."""
    (tmp_path / "in").write_text("in")
    with Sandbox(engine="docker") as box:
        begun = int(time.time()) - 1
        box.put(tmp_path / "in", "/work/")
        box.get("/work/in", tmp_path / "out")
        machine = box._machine
        assert isinstance(machine, DockerMachine)
        done = told(machine, begun)
        assert "exec_start" in done and not {"archive-path", "extract-to-dir", "export", "commit"} & set(done)
        machine._api.put_archive(machine.id, "/tmp", open_folder("/tmp/x"))
        until("the engine does not tell", lambda: "extract-to-dir" in told(machine, begun))


def told(machine: DockerMachine, since: int) -> list[str]:
    """Return what the engine has done with a container."""
    events = machine._api.events(
        since=since, until=int(time.time()) + 1, filters={"container": machine.id}, decode=True
    )
    return [event["Action"].partition(":")[0] for event in events]


@pytest.mark.parametrize("engine", ["docker", "podman"])
@pytest.mark.attack("processes", "write to the runtime's program while it enters the sandbox (CVE-2019-5736)")
def test_the_runtime_is_not_overwritten(engine: str) -> None:
    programs = [Path(path) for name in ("runc", "crun", "conmon") if (path := shutil.which(name))]
    before = [hashlib.sha256(path.read_bytes()).hexdigest() for path in programs]
    look = (
        "$| = 1; until (-e q(/tmp/stop)) { for (</proc/[0-9]*/exe>) { $n++; $l = readlink or next; "
        "next if $l =~ m(/perl|/bash|/dash|/sleep|docker-init|catatonit|/tar|/cat|/su$|setpriv); "
        "open $f, q(+<), $_ and print qq(opened $l\\n) } } print qq(looked $n\\n)"
    )
    with Sandbox(engine=engine) as box:
        job = box.start_job(perl(look))
        for _ in range(6):
            box.start_job("true").wait(90)
        box.run("touch /tmp/stop")
        told = job.wait(90).stdout
    assert told.endswith("\n") and int(told.split()[-1]) > 0, told
    if "opened" in told or before != [hashlib.sha256(path.read_bytes()).hexdigest() for path in programs]:
        raise Breach(told)
