"""Workloads that want more than a sandbox has: it says what happened, and it and the machine go on."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_magic import CommandTimeout, Result, Sandbox
from sandbox_magic.jupyter.view import CellView

MEMORY, PIDS = 128 << 20, 40
ENGINES = ["docker", "podman", "bubblewrap"]
STRESSED = ["docker", "bubblewrap"]
SECONDS = 60  # for what takes two or three on a quiet machine


def limited(engine: str, **wish: object) -> Sandbox:
    """Return a small `sealed` sandbox with stress-ng inside, whatever its image has."""
    program = shutil.which("stress-ng")
    assert program, "stress-ng is missing: scripts/tools.sh installs it"
    if engine != "bubblewrap":  # which has the host's programs
        wish["mounts"] = [f"{program}:/opt/stress-ng", f"{libraries()}:/opt/lib"]
    return Sandbox(engine=engine, profile="sealed", memory=MEMORY, pids=PIDS, **wish)


def libraries() -> Path:
    (found,) = Path("/usr/lib").glob("*-linux-gnu/libc.so.6")
    return found.parent


def stress(box: Sandbox, arguments: str) -> Result:
    program = "stress-ng"
    if box.spec.mounts:  # with the libraries that it was linked with
        loader = next(libraries().glob("ld-linux*.so.*")).name
        program = f"/opt/lib/{loader} --library-path /opt/lib /opt/stress-ng"
    return box.run(f"cd /work; {program} --timeout 2s {arguments}", timeout=SECONDS)


def reached(box: Sandbox) -> dict[str, int]:
    assert box._machine is not None and box._session is not None
    return dict(box._machine.reached(box._session.control.call))


@pytest.fixture(scope="module", params=STRESSED, ids="{}-sealed".format)
def stressed(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with limited(request.param) as made:
        yield made


@pytest.fixture(scope="module", params=ENGINES, ids="{}-sealed".format)
def box(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with Sandbox(engine=request.param, profile="sealed", memory=MEMORY, pids=PIDS) as made:
        yield made


def alive(box: Sandbox) -> bool:
    return box.run("echo alive").stdout == "alive\n"


@pytest.mark.parametrize(
    "workload",
    [
        pytest.param("--vm 1 --vm-bytes 512m --vm-keep", id="mapped"),
        pytest.param("--memfd 1 --memfd-bytes 512m", id="memfd"),
    ],
)
@pytest.mark.attack("limits", "stress-ng takes four times the memory", bounded=True)
def test_memory(stressed: Sandbox, workload: str) -> None:
    before = reached(stressed)["memory"]
    stress(stressed, f"{workload} --oomable")
    assert reached(stressed)["memory"] > before
    assert alive(stressed)


@pytest.mark.attack("limits", "stress-ng makes hundreds of threads", bounded=True)
def test_processes(stressed: Sandbox) -> None:
    before = reached(stressed)["processes"]
    stress(stressed, "--pthread 2 --pthread-max 400")
    assert reached(stressed)["processes"] > before
    assert alive(stressed)


@pytest.mark.attack("limits", "stress-ng fills /work", bounded=True)
def test_disk(stressed: Sandbox) -> None:
    stress(stressed, "--hdd 2 --hdd-bytes 400m --temp-path /work")
    stressed.run("rm -rf /work/*")
    assert alive(stressed)


@pytest.mark.parametrize("engine", STRESSED, ids="{}-sealed".format)
@pytest.mark.attack("limits", "stress-ng keeps four processors busy", bounded=True)
def test_processors(engine: str) -> None:
    with limited(engine, cpus=0.2) as box:
        told = stress(box, "--cpu 4 --metrics-brief").output
    match = re.search(r"\] cpu +\d+ +([\d.]+) +([\d.]+) +([\d.]+)", told)
    assert match, told
    real, user, system = map(float, match.groups())
    assert user + system <= 0.35 * real, told  # the kernel counts in periods of a tenth of a second


@pytest.mark.parametrize("engine", ENGINES, ids="{}-sealed".format)
@pytest.mark.attack("limits", "a fork bomb", bounded=True)
def test_a_fork_bomb_is_named_and_survived(engine: str) -> None:
    with Sandbox(engine=engine, profile="sealed", pids=PIDS) as box:  # what is left of it may go on
        with contextlib.suppress(CommandTimeout):
            box.run("bomb() { bomb | bomb & }; bomb; sleep 2; sleep 100; false", timeout=4)
        assert box.last is not None
        named = (f"the limit of {PIDS} processes was reached", "the sandbox was ended", "sandbox itself has ended")
        assert any(text in note for text in named for note in box.last.notes), box.last.notes
        assert alive(box)


@pytest.mark.attack("limits", "one process takes all memory", bounded=True)
def test_memory_is_named(box: Sandbox) -> None:
    result = box.run("head -c 400000000 /dev/zero | tail -c 390000000 >/dev/null")
    (note,) = result.notes
    assert note.startswith("the memory limit (128m) was reached: ")
    assert box.status()["oom killed"] is True


@pytest.mark.parametrize("folder", ["/tmp", "/work", "/run", "/dev/shm"])
@pytest.mark.attack("limits", "fill a folder in memory", bounded=True)
def test_a_full_folder_is_named(box: Sandbox, folder: str) -> None:
    size = next(known.size for known in (box.spec.shm, *box.spec.folders) if known.path == folder)
    result = box.run(f"head -c 200000000 /dev/zero >{folder}/big || (wc -c <{folder}/big; exit 1)")
    if (box.spec.engine, folder) == ("podman", "/run"):  # which keeps the image's mode: only root may write there
        assert "denied" in result.stderr
        return
    box.run(f"rm {folder}/big")
    assert 0 < int(result.stdout) <= size
    assert [note for note in result.notes if f"is full: {folder} " in note], result.notes


@pytest.mark.parametrize("engine", ["bubblewrap"], ids="{}-sealed".format)
@pytest.mark.attack("limits", "print 200 MB without a newline, to fill this process", bounded=True)
def test_output_without_end(engine: str) -> None:
    """What is kept of it lies in a file, and what is shown is bounded; a page of it is another 64 MB for a moment."""
    status, written = Path("/proc/self/status"), io.StringIO()
    with Sandbox(engine=engine, profile="sealed") as box, contextlib.redirect_stdout(written):
        box.run("true")
        Path("/proc/self/clear_refs").write_text("5")  # the most that there was is from now on
        before = int(re.findall(r"VmRSS:\s+(\d+)", status.read_text())[0])
        view = CellView()
        result = box.run("head -c 200000000 /dev/zero | tr '\\0' x", on_output=view.show)
        view.finish()
        most = int(re.findall(r"VmHWM:\s+(\d+)", status.read_text())[0])
    assert result.truncated and len(written.getvalue()) < 2_000_000
    assert most - before < 150_000, "KB"


@pytest.mark.parametrize("engine", ["docker"], ids="{}-sealed".format)  # the others cannot bound them: the memory does
@pytest.mark.attack("limits", "fill a folder with empty files", bounded=True)
def test_the_number_of_files(engine: str) -> None:
    with Sandbox(engine=engine, profile="sealed") as box:
        result = box.run("cd /run && touch $(seq 5000); ls | wc -l")
        assert "No space left" in result.stderr
        assert 0 < int(result.stdout) <= 4096


@pytest.mark.attack("limits", "raise the limits of a process")
@pytest.mark.parametrize("limit", ["-n 4097", "-c 1", "-n unlimited"])
def test_limits_are_not_raised(box: Sandbox, limit: str) -> None:
    assert box.run(f"ulimit {limit}").exit_code != 0


@pytest.mark.attack("limits", "leave a core file")
def test_no_core_file(box: Sandbox) -> None:
    result = box.run("cd /work; sh -c 'kill -SEGV $$'; ls -A /work | grep core; ulimit -Hc")
    assert result.stdout == "0\n"


@pytest.mark.parametrize(("engine", "profile", "size"), [("docker", "standard", 8), ("podman", "sealed", 2)])
@pytest.mark.attack("limits", "write a file without end", bounded=True)
def test_the_size_of_a_file(engine: str, profile: str, size: int) -> None:
    with Sandbox(engine=engine, profile=profile) as box:
        assert box.run(f"truncate -s {size}G /tmp/most && rm /tmp/most").exit_code == 0
        result = box.run(f"(trap '' XFSZ; truncate -s $(({size} * 1073741824 + 1)) /tmp/more)")
        assert result.exit_code != 0 and f"the limit of a file's size ({size}g) was reached" in result.notes
