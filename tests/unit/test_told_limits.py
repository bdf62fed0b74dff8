"""What the kernel says of limits, in both versions of control groups, against what was wished."""

from __future__ import annotations

import subprocess

import pytest

from sandbox_magic import SandboxSpec
from sandbox_magic.engines import limits
from sandbox_magic.engines.about import About

WISH = limits.Wish.of(SandboxSpec(profile="sealed", memory=256 << 20, pids=60, cpus=0.5), 0.5)
GROUPS = "/sys/fs/cgroup"
NEWER = f"""\
{GROUPS}/memory.max 268435456
{GROUPS}/memory.swap.max 0
{GROUPS}/pids.max 60
{GROUPS}/cpu.max 50000 100000
"""
OLDER = f"""\
{GROUPS}/memory/memory.limit_in_bytes 268435456
{GROUPS}/memory/memory.memsw.limit_in_bytes 268435456
{GROUPS}/pids/pids.max 60
{GROUPS}/cpu/cpu.cfs_quota_us 50000
{GROUPS}/cpu/cpu.cfs_period_us 100000
"""
REST = """\
/proc/swaps Filename Type Size Used Priority
/proc/swaps /dev/sda2 partition 999 0 -2
/proc/self/limits Limit                     Soft Limit           Hard Limit           Units
/proc/self/limits Max file size             2147483648           2147483648           bytes
/proc/self/limits Max core file size        0                    0                    bytes
/proc/self/limits Max open files            1024                 4096                 files
mount /dev/shm rw,nosuid,size=65536k
mount /tmp rw,nosuid,nodev,size=32768k,nr_inodes=65536
mount /run rw,size=16384k,nr_inodes=4k
mount /work rw,size=131072k,nr_inodes=262144
"""


def broken(text: str) -> list[str]:
    return [limit.partition(" (")[0] for limit in limits.broken(WISH, limits.told(text))]


@pytest.mark.parametrize("groups", [NEWER, OLDER])
def test_what_holds(groups: str) -> None:
    assert broken(groups + REST) == []


@pytest.mark.parametrize(
    ("before", "after", "limit"),
    [
        ("memory.max 268435456", "memory.max max", "memory"),
        ("memory.swap.max 0", "memory.swap.max max", "swap"),
        ("pids.max 60", "pids.max max", "processes"),
        ("cpu.max 50000 100000", "cpu.max max 100000", "processors"),
        ("cpu.max 50000 100000", "cpu.max 60000 100000", "processors"),
        ("0                    0 ", "0                    unlimited ", "core file size"),
        ("1024                 4096", "1024                 1048576", "open files"),
        ("size=32768k,", "", "size of /tmp"),
        ("nr_inodes=65536", "nr_inodes=3083608", "number of files in /tmp"),
        ("mount /dev/shm", "mount /elsewhere", "size of /dev/shm"),
    ],
)  # fmt: skip
def test_what_does_not_hold_in_version_2(before: str, after: str, limit: str) -> None:
    assert before in NEWER + REST
    assert broken((NEWER + REST).replace(before, after)) == [limit]


@pytest.mark.parametrize(
    ("line", "after", "limit"),
    [(0, 1 << 62, "memory"), (1, 1 << 62, "swap"), (2, "max", "processes"), (3, -1, "processors")],
)
@pytest.mark.parametrize("missing", [False, True])
def test_what_does_not_hold_in_version_1(line: int, after: object, limit: str, missing: bool) -> None:
    lines = OLDER.splitlines(keepends=True)
    lines[line] = "" if missing else f"{lines[line].split()[0]} {after}\n"
    assert broken("".join(lines) + REST) == [limit]


def test_without_swap_there_is_nothing_to_limit() -> None:
    without = REST.replace("/proc/swaps /dev/sda2 partition 999 0 -2\n", "")
    assert broken(NEWER.replace("memory.swap.max 0", "memory.swap.max max") + without) == []


def test_nothing_told_is_nothing_proved() -> None:
    assert {"memory", "processes", "processors", "open files", "size of /work"} <= set(broken(""))


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_script_tells_and_leaves_nothing(shell: str) -> None:
    names = ("device", "file", "line", "options", "path", "rest", "type")
    program = "".join(f"{name}=mine; " for name in names) + limits.SCRIPT
    program += "echo kept " + "".join(f"${name}" for name in names)
    told = subprocess.run([shell, "-c", program], capture_output=True, text=True, check=True)
    assert told.stderr == "" and told.stdout.endswith("kept " + len(names) * "mine" + "\n")
    assert any(line.startswith("Max open files") for line in limits.told(told.stdout)["/proc/self/limits"])


def test_how_often_a_limit_was_reached() -> None:
    newer = f"{GROUPS}/memory.events oom 3\n{GROUPS}/memory.events oom_kill 2\n{GROUPS}/pids.events max 7\n"
    assert limits.counts(limits.told(newer)) == {"memory": 2, "processes": 7}
    assert limits.counts(limits.told(f"{GROUPS}/memory/memory.oom_control oom_kill 1\n")) == {"memory": 1}
    assert limits.counts({}) == {}


@pytest.mark.parametrize("shell", [("sh",), ("bash", "--posix")])
def test_what_an_engine_forgets_is_set_before_the_process(shell: tuple[str, ...]) -> None:
    words = limits.setting(1 << 20)
    command = [*shell, *words[1:], "cat", "/proc/self/limits"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    said = {"/proc/self/limits": lines}
    assert list(limits.rlimits(limits.OF_A_PROCESS | {"file size": 1 << 20}, said)) == []
    assert list(limits.rlimits({"file size": (1 << 20) - 1}, said)) != []


def test_podman_denies_on_version_2_what_it_can() -> None:
    said = {"CgroupVersion": "2", "CpuCfsQuota": False}
    assert not About.read(said, choice=False).shares_processors
    podman = About.read(said | {"BuildahVersion": "1.28.2"}, choice=False)
    assert podman.shares_processors and not podman.drops_ulimits
    assert About.read(said | {"BuildahVersion": "1.28.2", "Rootless": True}, choice=False).drops_ulimits
    assert not About.read(said | {"Rootless": True}, choice=False).drops_ulimits
