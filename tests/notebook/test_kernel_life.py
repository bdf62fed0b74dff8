"""Nothing outlives its kernel, however that ends; a forked child harms nobody; the sweep removes only what is dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from kernels import Kernel, containers, sandbox_kernel, seconds_until

from sandbox_magic.engines import find_engine
from sandbox_magic.engines.base import Owner
from sandbox_magic.engines.docker import LABEL
from sandbox_magic.engines.endpoints import docker_places, first
from sandbox_magic.spec import SandboxSpec

GONE_SECONDS = 10.0  # from a kernel's SIGKILL to the end of its containers; on a quiet machine 1 s: `make bench`
SWEPT_SECONDS = 15.0  # from the load to the end of the sweep, which begins 2 s later
CHILD_SECONDS = 8.0  # what a forked child may take for its attempts
IMAGE = "debian:stable-slim"


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    """A kernel whose default sandbox runs."""
    with sandbox_kernel(tmp_path) as kernel:
        kernel.ok("%%sandbox\ntrue")
        assert len(kernel.containers()) == 1
        yield kernel


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """The kernel of all tests that leave it and its sandbox alive."""
    with sandbox_kernel(tmp_path_factory.mktemp("kernel")) as kernel:
        yield kernel


def assert_gone(pid: int) -> None:
    """The containers of this process, which has just ended, are gone in time."""
    assert seconds_until(lambda: not containers(pid), GONE_SECONDS) < GONE_SECONDS, containers(pid)


# ---- the end of a kernel


def test_shutdown_leaves_nothing(kernel: Kernel) -> None:
    pid = kernel.pid
    kernel.ok("%%sandbox -n second --image busybox:latest\ntrue")
    assert len(containers(pid)) == 2
    kernel.manager.shutdown_wait_time = 40.0  # at half of it the kernel would be terminated
    begin = time.monotonic()
    kernel.shutdown()
    assert time.monotonic() - begin < 20
    assert_gone(pid)


def test_restart_begins_with_a_new_sandbox(kernel: Kernel) -> None:
    pid = kernel.pid
    kernel.ok("%%sandbox\necho old >/tmp/old")
    kernel.restart()
    assert kernel.pid != pid
    assert_gone(pid)
    kernel.ok("%load_ext sandbox_magic")
    assert kernel.ok("%%sandbox\nls /tmp").stdout == ""
    assert len(kernel.containers()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed_idle_kernel_leaves_nothing(kernel: Kernel, number: signal.Signals) -> None:
    pid = kernel.pid
    kernel.signal(number)
    assert_gone(pid)


@pytest.mark.parametrize(
    "code", ["echo begun; sleep 100", "trap '' HUP INT TERM PIPE; echo begun; setsid sleep 100 & yes"]
)
def test_killed_busy_kernel_leaves_nothing(kernel: Kernel, code: str) -> None:
    pid = kernel.pid
    cell = kernel.send(f"%%sandbox\n{code}")
    kernel.wait_for(cell, "begun")
    kernel.signal(signal.SIGKILL)
    assert_gone(pid)


def test_kernel_killed_while_its_sandbox_starts_leaves_nothing_that_runs(tmp_path: Path) -> None:
    """Between create and start there is nothing that could run; the sweep of the next kernel removes it."""
    with sandbox_kernel(tmp_path) as kernel:
        pid = kernel.pid
        kernel.send("%%sandbox\nsleep 100")
        assert seconds_until(lambda: bool(containers(pid)), 10) < 10
        kernel.signal(signal.SIGKILL)
        engine = find_engine(SandboxSpec())
        created_only = seconds_until(lambda: not containers(pid), 1) >= 1
        if created_only:
            engine.sweep()
        assert not containers(pid)


# ---- fork


FORK = """
import os
from pathlib import Path
from sandbox_magic.manager import current_manager
manager = current_manager()
box = manager.find()
child = os.fork()
if child == 0:
    said = []
    for attempt in ({attempts}):
        try:
            attempt()
            said.append("nothing")
        except BaseException as error:
            said.append(type(error).__name__)
    Path("child.tmp").write_text(" ".join(said))
    os.rename("child.tmp", "child")
    {end}
"""


@contextmanager
def forked(kernel: Kernel, attempts: str, end: str) -> Iterator[tuple[int, list[str]]]:
    """Fork in a kernel; give the child's process id and what each of its attempts raised."""
    report = kernel.folder / "child"
    report.unlink(missing_ok=True)  # an earlier child's
    kernel.ok(FORK.format(attempts=attempts, end=end))
    child = int(kernel.value("child"))
    try:
        assert seconds_until(report.exists, CHILD_SECONDS) < CHILD_SECONDS, "the child hangs"
        yield child, report.read_text().split()
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def test_forked_child_cannot_use_the_sandbox_nor_keep_it_alive(kernel: Kernel) -> None:
    pid = kernel.pid
    attempts = """
        lambda: box.run("touch /tmp/child"),
        lambda: manager.find(),
        lambda: manager.get(),
        lambda: current_manager().find(),
    """
    with forked(kernel, attempts, "import time; time.sleep(100)") as (child, said):
        assert said == ["SessionClosed", "InvalidOptions", "InvalidOptions", "InvalidOptions"]
        assert kernel.run("%%sandbox\ntest ! -e /tmp/child && echo usable").stdout == "usable\n"
        kernel.signal(signal.SIGKILL)
        assert_gone(pid)
        os.kill(child, 0)  # it still lives


def test_forked_child_gets_a_sandbox_of_its_own(lasting: Kernel) -> None:
    lasting.ok("%%sandbox\nwhose=parent")
    attempt = 'lambda: get_ipython().run_line_magic("sandbox", "-q test -z $whose"),'
    with forked(lasting, attempt, "import time; time.sleep(100)") as (child, said):
        assert said == ["nothing"]
        assert len(containers(child)) == len(lasting.containers()) == 1
        os.kill(child, signal.SIGKILL)
        assert_gone(child)
        assert lasting.run("%%sandbox\necho $whose").stdout == "parent\n"


@pytest.mark.parametrize("attempt", ["manager.close_all", "box.close", "box.reset", "lambda: box.put('file', '/tmp/')"])
def test_forked_child_cannot_end_or_change_the_parents_sandbox(lasting: Kernel, attempt: str) -> None:
    lasting.ok("%%sandbox\nwhose=parent")
    (lasting.folder / "file").touch()
    (before,) = lasting.containers()
    with forked(lasting, f"{attempt},", "os._exit(0)") as (_, said):
        assert lasting.run("os.waitpid(child, 0)[1]").contents("execute_result")[0]["data"]["text/plain"] == "0"
        assert said == ["SessionClosed" if "put" in attempt or "reset" in attempt else "nothing"]
        assert lasting.containers() == [before]
        assert lasting.run("%%sandbox\necho $whose; ls /tmp").stdout == "parent\n"


def test_multiprocessing_leaves_the_sandbox_alone(lasting: Kernel) -> None:
    lasting.ok("%%sandbox\nkept=yes")
    lasting.ok(
        "import multiprocessing\nwith multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "    assert pool.map(abs, [-1, -2]) == [1, 2]"
    )
    assert lasting.run("%%sandbox\necho $kept").stdout == "yes\n"


# ---- the sweep


def dead_owner() -> Owner:
    """Return the owner that a process was which has ended."""
    code = "from sandbox_magic.engines.base import Owner; print(*Owner.me().labels().values(), sep='\\n')"
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=30)
    host, pid, started = ended.stdout.splitlines()
    owner = Owner(host, int(pid), started)
    assert owner.doubt() == ""
    return owner


OWNERS: Mapping[str, Callable[[], Owner]] = {
    "dead": dead_owner,
    "rebooted": lambda: Owner("/".join((Owner.me().host.split("/")[0], "an-earlier-boot", "pid:[1]")), 1, "1"),
    "live": Owner.me,
    "reused": lambda: Owner(Owner.me().host, os.getpid(), "1"),  # the process id lives, but it is another process
    "elsewhere": lambda: Owner("another-machine/boot/pid:[1]", 1, "1"),
    "unlabelled": lambda: Owner("", 0, ""),
}


@contextmanager
def left_behind() -> Iterator[dict[str, str]]:
    """Make one container for each owner, created and not started; give their ids by the owners' names."""
    client = first(docker_places(None), podman=False).client
    made = {}
    try:
        for name, owner in OWNERS.items():
            labels = {LABEL: "1", f"{LABEL}.name": name} | owner().labels()
            made[name] = str(client.api.create_container(IMAGE, ["true"], labels=labels)["Id"])
        yield made
    finally:
        for ident in made.values():
            find_engine(SandboxSpec()).remove(ident)
        client.close()


def still_there(made: Mapping[str, str]) -> set[str]:
    known = {found.id for found in find_engine(SandboxSpec()).found()}
    return {name for name, ident in made.items() if ident in known}


KEPT = {"live", "elsewhere", "unlabelled"}


def test_load_sweeps_only_what_is_provably_dead(tmp_path: Path) -> None:
    with left_behind() as made, sandbox_kernel(tmp_path) as kernel:
        assert seconds_until(lambda: still_there(made) <= KEPT, SWEPT_SECONDS) < SWEPT_SECONDS
        assert still_there(made) == KEPT
        assert kernel.containers() == []  # to sweep starts nothing


def test_gc_sweeps_at_once_and_says_what(tmp_path: Path) -> None:
    with sandbox_kernel(tmp_path) as kernel, left_behind() as made:
        said = kernel.ok("%sandboxctl gc").stdout
        assert still_there(made) == KEPT
        for name, ident in made.items():
            assert f"docker: {'left' if name in KEPT else 'removed'} {ident[:12]}: " in said, (name, said)
        assert f"left {made['live'][:12]}: its owner, process {os.getpid()}, lives" in said
        assert f"left {made['elsewhere'][:12]}: its owner is on another machine" in said
        assert f"left {made['unlabelled'][:12]}: nobody is named as its owner" in said
