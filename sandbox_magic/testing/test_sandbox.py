"""What a sandbox promises: isolation, files, reset, and an end that leaves nothing."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from sandbox_magic import ImageNotFound, Sandbox, TransferError
from sandbox_magic.engines import find_engine
from sandbox_magic.engines.base import IMAGES, NETWORK_SWITCH, Owner
from sandbox_magic.testing.host import nothing_is_left, until

pytestmark = pytest.mark.alike("shell")


def ours(box: Sandbox) -> list[str]:
    """The ids of this process's sandboxes."""
    me = Owner.me()
    return [found.id for found in find_engine(box.spec).found() if Owner.from_labels(found.labels) == me]


def test_close_leaves_nothing_and_can_be_repeated(wish: dict[str, Any]) -> None:
    box = Sandbox(**wish)
    before = ours(box)
    box.run("sleep 1000 &")
    assert len(ours(box)) == len(before) + 1
    box.close()
    box.close()
    assert ours(box) == before


def test_reset_goes_back_to_the_image(box: Sandbox) -> None:
    box.run("echo x >/work/marker; cd /tmp; export V=1")
    before = ours(box)
    box.reset()
    assert box.run("ls /work; echo $V; pwd").stdout == "\n/work\n"
    assert len(ours(box)) == len(before)


def test_two_sandboxes_do_not_see_each_other(shared: Sandbox, box: Sandbox) -> None:
    folders = "/tmp /var/tmp /work /dev/shm /run"
    box.run(f"for folder in {folders}; do echo secret >$folder/secret; done; sleep 4242 &")
    look = f"for folder in {folders}; do cat $folder/secret; done"
    assert "secret\n" in box.run(look).stdout
    assert shared.run(look).stdout == ""
    commands = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\000' ' '"
    until("it does not see its own processes", lambda: "sleep 4242" in box.run(commands).stdout)
    assert "sleep 4242" not in shared.run(commands).stdout


# Each with a tool that some sandboxes have: perl makes a socket with an abstract name, busybox one on the loopback.
SOCKET = 'perl -MSocket -e \'socket(S, AF_UNIX, SOCK_STREAM, 0); my $name = pack_sockaddr_un("\\0sandbox-test"); '
SOCKETS = {
    "perl": (f"{SOCKET} bind(S, $name); listen(S, 9); sleep 1000'", f"{SOCKET} exit(connect(S, $name) ? 0 : 7)'"),
    "nc": ("while :; do nc -l -p 4242 </dev/null; done", "nc 127.0.0.1 4242 </dev/null"),
}


def test_two_sandboxes_cannot_connect(shared: Sandbox, box: Sandbox) -> None:
    tool = next((tool for tool in SOCKETS if box.run(f"command -v {tool}").exit_code == 0), None)
    if tool is None:
        pytest.skip(f"neither of {', '.join(SOCKETS)} is inside")
    listen, connect = SOCKETS[tool]
    box.run(f"{listen} &")
    until("it does not reach itself", lambda: box.run(connect).exit_code == 0)
    assert shared.run(connect).exit_code not in (0, 127)
    until("it does not reach itself any more", lambda: box.run(connect).exit_code == 0)


LOOPBACK = {
    "perl": "perl -MSocket -e 'socket(S, AF_INET, SOCK_STREAM, 0); my $any = sockaddr_in(0, INADDR_LOOPBACK); "
    "bind(S, $any) && listen(S, 9) or die; socket(C, AF_INET, SOCK_STREAM, 0); "
    'connect(C, getsockname(S)) or die "$!"; print "heard\n"\'',
    "nc": "{ echo heard | timeout 20 nc -l -p 4244 & } 2>/dev/null; "
    "while kill -0 $! 2>/dev/null; do nc 127.0.0.1 4244 </dev/null 2>/dev/null; sleep 0.1; done",
}


def assert_loopback(box: Sandbox, *, network: bool = False) -> None:
    tool = next((tool for tool in LOOPBACK if box.run(f"command -v {tool}").exit_code == 0), None)
    if tool is None:
        pytest.skip(f"neither of {', '.join(LOOPBACK)} is inside")
    result = box.run(LOOPBACK[tool], network=network, timeout=60)
    assert result.stdout == "heard\n", result.stderr


def test_programs_inside_reach_each_other_on_the_loopback(shared: Sandbox) -> None:
    assert_loopback(shared)


@pytest.mark.needs(NETWORK_SWITCH)
def test_they_do_so_online_and_offline_again(shared: Sandbox) -> None:
    assert_loopback(shared, network=True)
    assert_loopback(shared)


@pytest.mark.needs(NETWORK_SWITCH)
def test_no_network_until_asked(box: Sandbox) -> None:
    interfaces = "while read -r name rest; do case $name in *:*) echo ${name%%:*};; esac; done </proc/net/dev"
    assert box.run(interfaces).stdout == "lo\n"
    assert "eth" in box.run(interfaces, network=True).stdout
    assert box.run(interfaces).stdout == "lo\n"
    box.network(True)
    assert box.online
    assert "eth" in box.run(interfaces).stdout
    box.network(False)
    assert box.run(interfaces).stdout == "lo\n"


@pytest.mark.needs(IMAGES)
def test_the_walls_of_standard(box: Sandbox) -> None:
    status = dict(
        line.split(":\t", 1) for line in box.run("cat /proc/self/status").stdout.splitlines() if ":\t" in line
    )
    assert int(status["CapBnd"], 16) == sum(1 << bit for bit in (0, 1, 3, 6, 7))
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    limits = {line[:24].strip(): line[24:].split()[:2] for line in box.run("cat /proc/self/limits").stdout.splitlines()}
    assert limits["Max open files"][1] == "4096"  # an exec of Podman's starts with all of it
    assert limits["Max core file size"] == ["0", "0"]
    facts = box.status()
    assert facts["memory limit"] == 4 << 30
    assert facts["pids limit"] == 1024
    assert facts["user id"] == "0"
    assert facts["network interfaces"] == "lo"


def test_offline_can_always_be_asked_for(box: Sandbox) -> None:
    box.network(False)
    assert not box.online


def test_nothing_of_the_host_is_inside(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_SECRET", "tweet")
    assert "tweet" not in box.run("env; set").stdout
    assert box.run("ls /var/run/docker.sock /run/docker.sock").exit_code != 0


def test_sealed(wish: dict[str, Any]) -> None:
    with Sandbox(**wish, profile="sealed") as box:
        assert box.run(
            "id -u; touch /root-file || touch /usr/x || echo refused; echo ok >/work/f; cat /work/f"
        ).stdout == ("10001\nrefused\nok\n")
        assert box.run("echo mine >~/f && cat ~/f").stdout == "mine\n", "its home is a folder that it may write to"
        with pytest.raises(TransferError):
            box.get("/work/none", ".")


@pytest.mark.needs(IMAGES)
def test_another_user_can_work(wish: dict[str, Any]) -> None:
    with Sandbox(**wish, user="1234:1234") as box:
        assert box.run("id -u; echo mine >f; cat f").stdout == "1234\nmine\n"


def test_limits_are_asked_for(wish: dict[str, Any]) -> None:
    with Sandbox(**wish, memory="64m", cpus=0.5, pids=50) as box:
        facts = box.status()
        assert (facts["memory limit"], facts["cpus limit"], facts["pids limit"]) == (64 << 20, 0.5, 50)
        result = box.run("head -c 200000000 /dev/zero | tail -c 190000000 >/dev/null; echo after")
        assert result.stdout == "after\n"


def test_mounts_are_read_only_unless_asked(wish: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory(prefix="sandbox-mount-") as folder:  # not pytest's: others may not enter those
        Path(folder).chmod(0o777)
        (Path(folder) / "in.txt").write_text("in\n")
        with Sandbox(**wish, mounts=[f"{folder}:/data", f"{folder}:/out:rw"]) as box:
            told = box.run("cat /data/in.txt; echo x >/data/new || echo refused; echo x >/out/new; ls /data")
            assert told.stdout == "in\nrefused\nin.txt\nnew\n"


def test_files_in_and_out(box: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "a.bin").write_bytes(bytes(range(256)) * 5000)
    (tmp_path / "tree" / "sub" / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "tree" / "sub" / "run.sh").chmod(0o755)
    box.put(tmp_path / "tree", "/work/")
    assert box.run("/work/tree/sub/run.sh; wc -c </work/tree/a.bin").stdout.split() == ["ran", "1280000"]
    box.put(tmp_path / "tree" / "a.bin", "renamed.bin")
    written = box.get("renamed.bin", tmp_path / "back.bin")
    assert written == [tmp_path / "back.bin"]
    assert (tmp_path / "back.bin").read_bytes() == bytes(range(256)) * 5000
    (tmp_path / "out").mkdir()
    box.get("/work/tree", tmp_path / "out")
    assert (tmp_path / "out" / "tree" / "sub" / "run.sh").read_text().endswith("echo ran\n")


def test_20_mb_of_random_bytes_go_in_and_out(box: Sandbox, tmp_path: Path) -> None:
    data = os.urandom(20_000_000)
    (tmp_path / "in").write_bytes(data)
    box.put(tmp_path / "in", "/work/random")
    assert box.run("md5sum </work/random").stdout.split()[0] == hashlib.md5(data).hexdigest()
    box.get("/work/random", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == data


def test_links_do_not_get_out(box: Sandbox, tmp_path: Path) -> None:
    box.run("mkdir /work/evil; ln -s /etc/passwd /work/evil/link; echo ok >/work/evil/file")
    with pytest.raises(TransferError, match="link"):
        box.get("/work/evil", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_said(box: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="get /nope"):
        box.get("/nope", tmp_path)
    with pytest.raises(TransferError):
        box.put(tmp_path / "nope", "/work/")
    assert box.run("echo fine").stdout == "fine\n"


@pytest.mark.needs(IMAGES)
def test_an_image_that_is_not_there(wish: dict[str, Any]) -> None:
    said: list[str] = []
    with pytest.raises(ImageNotFound, match="no/such-image"):
        Sandbox(**wish | {"image": "localhost:1/no/such-image:9"}, on_progress=said.append).start()
    assert said[0].startswith("starting")
    assert any(text.startswith("pulling localhost:1/no/such-image:9") for text in said)
    assert said[-1] != "", "it is not done"


def test_a_sandbox_that_was_removed_from_outside_is_replaced(box: Sandbox) -> None:
    box.run("echo x >/tmp/x")
    assert box._machine is not None
    find_engine(box.spec).remove(box._machine.id)
    time.sleep(0.3)
    result = box.run("ls /tmp/x")
    assert result.exit_code != 0
    assert any("sandbox had ended" in note for note in result.notes)


def test_the_end_of_the_sandbox_during_a_run_is_said(box: Sandbox) -> None:
    assert box._machine is not None
    timer = threading.Timer(0.4, find_engine(box.spec).remove, [box._machine.id])
    timer.start()
    result = box.run("sleep 60")
    timer.join()
    assert result.exit_code is None
    assert "ended during this cell" in result.notes[0]
    assert box.run("echo new").stdout == "new\n"


@pytest.mark.parametrize("how", ["end", "sigkill", "sigkill-busy", "fork"])
def test_nothing_outlives_the_owner(wish: dict[str, Any], how: str) -> None:
    program = f"""
import os, sys, threading, time
from sandbox_magic import Sandbox
box = Sandbox(**{wish!r}).start()
print(box._machine.id, flush=True)
if {how!r} == "fork" and os.fork() == 0:
    os.close(1)
    time.sleep(15)  # a child that lives on must not hold the sandbox
    os._exit(0)
if {how!r} == "sigkill-busy":
    box.run("sleep 100")
if {how!r} != "end":
    time.sleep(100)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    ident = process.stdout.readline().decode().strip()
    engine = find_engine(Sandbox(**wish).spec)
    assert ident
    if how != "end":
        time.sleep(0.3)
        process.kill()
    process.wait()
    process.stdout.close()
    until("the sandbox outlived its owner", lambda: ident not in [found.id for found in engine.found()], 5)
    nothing_is_left([ident])


def test_a_forked_child_cannot_use_it(box: Sandbox) -> None:
    box.run("true")
    child = os.fork()
    if child == 0:
        try:
            box.run("echo no")
        except BaseException as error:  # noqa: BLE001 # the test runner must not go on in the child
            os._exit(0 if type(error).__name__ == "SessionClosed" else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert box.run("echo parent").stdout == "parent\n"
