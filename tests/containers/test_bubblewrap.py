"""The walls that only bubblewrap's sandboxes have, tried from inside."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_magic import InvalidOptions, Sandbox
from sandbox_magic.engines import traces

# perl-base is on every Debian and Ubuntu, and can make any system call.
CALL = r"""perl -e 'for (@ARGV) { my ($call, @with) = map { $_ + 0 } split /,/; """
CALL += r"""print syscall($call, @with) < 0 ? "refused\n" : "done\n" }' """


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(engine="bubblewrap") as made:
        yield made


def test_status_tells_of_its_walls(box: Sandbox) -> None:
    facts = box.status()
    assert facts["engine"] == "bubblewrap"
    assert (facts["user id"], facts["no new privileges"], facts["seccomp"]) == ("10001", "1", "2")
    assert facts["capabilities"] == "0000000000000000"
    assert facts["network interfaces"] == "lo"


def test_every_namespace_is_another_one(box: Sandbox) -> None:
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
    inside = box.run("readlink " + " ".join(f"/proc/self/ns/{kind}" for kind in kinds), check=True).stdout.split()
    assert len(inside) == len(kinds)
    assert not set(inside) & {str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in kinds}


def test_it_outlives_the_thread_that_asked_for_it() -> None:
    """What the kernel ties to a parent's end, it ties to the thread that has forked."""
    made: list[Sandbox] = []
    thread = threading.Thread(target=lambda: made.append(Sandbox(engine="bubblewrap").start()))
    thread.start()
    thread.join()
    with made[0] as box:
        time.sleep(0.3)  # in which it would have died
        assert box.run("echo alive").stdout == "alive\n"
        assert box.run("echo again").notes == ()


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers are those of x86_64")
def test_system_calls_that_no_sandbox_makes(box: Sandbox) -> None:
    io_uring, alg, vsock, packet, keyctl, bpf = (
        "425,1,0",
        "41,38,5,0",
        "41,40,1,0",
        "41,17,3,0",
        "250,0,0,0",
        "321,0,0,0",
    )
    userfaultfd, perf, unshare, clone_user = "323,0", "298,0,0,0,0,0", "272,268435456", "56,268435473,0,0,0,0"
    for call in (io_uring, alg, vsock, packet, keyctl, bpf, userfaultfd, perf, unshare, clone_user):
        assert box.run(f"{CALL} {call}").stdout == "refused\n", call
    assert box.run(f"{CALL} 39 41,1,1,0 41,2,1,0").stdout == "done\n" * 3, "getpid, and sockets of everyday"


def test_process_1_cannot_be_looked_into(box: Sandbox) -> None:
    for look in ("cat /proc/1/mem", "cat /proc/1/environ", "cat /proc/1/maps", "ls /proc/1/fd", "ls /proc/1/root/"):
        assert "denied" in box.run(look).stderr, look
    box.run("kill -9 1; kill -STOP 1; kill -TERM 1")
    assert box.run("echo alive").stdout == "alive\n"


def test_nothing_of_the_host_is_inside(box: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("tweet")
    assert box.run(f"cat {tmp_path}/secret").exit_code != 0
    assert box.run("ls /home /root /var /boot /sys /srv /mnt /opt 2>/dev/null").stdout == ""
    names = box.run("hostname; cat /etc/passwd /etc/hosts; env").stdout
    assert socket.gethostname() not in names
    with socket.socket() as listener, socket.socket(socket.AF_UNIX) as abstract:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        abstract.bind(f"\0sandbox-test-{os.getpid()}")
        abstract.listen()
        port = listener.getsockname()[1]
        assert box.run(f"bash -c 'echo >/dev/tcp/127.0.0.1/{port}'").exit_code != 0
        assert f"sandbox-test-{os.getpid()}" not in box.run("cat /proc/net/unix").stdout


def test_what_can_be_written_is_bounded(box: Sandbox) -> None:
    writable = box.run(
        "for f in / /usr /etc /dev /proc /.sandbox; do : >$f/x; done 2>/dev/null; ls /x /usr/x /etc/x /dev/x"
    )
    assert writable.exit_code != 0 and writable.stdout == ""
    full = box.run("head -c 400000000 /dev/zero >/tmp/big; wc -c </tmp/big; rm /tmp/big")
    assert "No space left" in full.stderr and int(full.stdout) <= 256 << 20


def test_what_it_cannot_do_is_said() -> None:
    for wish in ({"image": "debian:stable-slim"}, {"network": True}, {"user": "root"}):
        with pytest.raises(InvalidOptions, match="docker"):
            Sandbox(engine="bubblewrap", **wish).start()
    with pytest.raises(InvalidOptions, match="own"):
        Sandbox(engine="bubblewrap", mounts=["/usr/share:/usr"]).start()


def test_the_memory_limit_is_named_when_it_was_reached() -> None:
    with Sandbox(engine="bubblewrap", memory="64m") as box:
        assert box.status()["oom killed"] is False
        assert box.run("head -c 200000000 /dev/zero | tail -c 190000000 >/dev/null; echo after").stdout == "after\n"
        if box.status()["limits by"].startswith("cgroup"):
            assert box.status()["oom killed"] is True


def test_the_kernels_sigkill_leaves_no_trace() -> None:
    program = "import os; from sandbox_magic import Sandbox; box = Sandbox(engine='bubblewrap').start(); "
    program += "box.run('sleep 1000 &'); print(box._machine.id, flush=True); os.kill(os.getpid(), 9)"
    ident = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False).stdout.strip()
    assert re.fullmatch("[0-9a-f]{64}", ident)
    groups = Path("/sys/fs/cgroup")
    deadline = time.monotonic() + 10
    while (traces.home() / ident).exists() or list(groups.glob(f"*/**/sandbox-magic/{ident[:12]}")):
        assert time.monotonic() < deadline, "a folder or a control group is left"
        time.sleep(0.05)
