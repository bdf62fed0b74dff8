"""The three profiles, each fact read from inside: docs/security.md and this must say the same."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tries import Breach

from sandbox_magic import Sandbox, SandboxSpec
from sandbox_magic.engines import find_engine
from sandbox_magic.engines.docker import DockerEngine

FIVE, MOST = 0xCB, 0xA00405FB  # CHOWN DAC_OVERRIDE FOWNER SETGID SETUID; an engine's fourteen less NET_RAW and MKNOD
MB, GB = 1 << 20, 1 << 30


@dataclass(frozen=True)
class Expected:
    user: str
    capabilities: int
    memory: int
    pids: int
    cpus: float
    shm: int
    file_size: str
    read_only: bool
    interfaces: str = "lo"


SEALED = Expected("10001", 0, 2 * GB, 256, 1, 64 * MB, str(2 * GB), True)
STANDARD = Expected("0", FIVE, 4 * GB, 1024, 2, 256 * MB, str(8 * GB), False)
OPEN = Expected("0", MOST, 8 * GB, 4096, 2, 256 * MB, "unlimited", False, "eth0, lo")
PLACES = {
    ("docker", "sealed"): SEALED,
    ("docker", "standard"): STANDARD,
    ("docker", "open"): OPEN,
    ("podman", "sealed"): SEALED,
    ("podman", "standard"): STANDARD,
    ("podman", "open"): OPEN,
    # One user without rights, a root in memory, so that no file can be larger than a folder.
    ("bubblewrap", "sealed"): Expected("10001", 0, 2 * GB, 256, 1, 64 * MB, "unlimited", True),
    ("bubblewrap", "standard"): Expected("10001", 0, 4 * GB, 1024, 2, 256 * MB, "unlimited", True),
}


@pytest.fixture(scope="module", params=PLACES, ids="-".join)
def known(request: pytest.FixtureRequest) -> Iterator[tuple[Sandbox, Expected]]:
    engine, profile = request.param
    with Sandbox(engine=engine, profile=profile) as box:
        yield box, PLACES[request.param]


def test_who_one_is_and_what_one_may(known: tuple[Sandbox, Expected]) -> None:
    box, expected = known
    facts = dict(line.split(":\t", 1) for line in box.run("cat /proc/self/status").stdout.splitlines())
    assert set(facts["Uid"].split()) == {expected.user}
    assert set(facts["Groups"].split()) <= {expected.user, facts["Gid"].split()[0]}
    assert {int(facts[kind], 16) for kind in ("CapPrm", "CapEff", "CapBnd")} == {expected.capabilities}
    assert int(facts["CapAmb"], 16) == int(facts["CapInh"], 16) == 0
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")


def test_limits(known: tuple[Sandbox, Expected]) -> None:
    box, expected = known
    facts = box.status()
    assert (facts["memory limit"], facts["pids limit"], facts["cpus limit"]) == (
        expected.memory,
        expected.pids,
        expected.cpus,
    )
    assert "not enforced" not in facts
    assert ("not limited" in facts) == (not expected.read_only), "the disk of the root is the engine's"
    hard = {line[:26].strip(): line[47:].split()[0] for line in box.run("cat /proc/self/limits").stdout.splitlines()}
    assert (hard["Max core file size"], hard["Max open files"]) == ("0", "4096")
    assert hard["Max file size"] == expected.file_size


def test_what_is_in_memory(known: tuple[Sandbox, Expected]) -> None:
    box, expected = known
    mounts = [line.split() for line in box.run("cat /proc/self/mounts").stdout.splitlines()]
    options = {mount[1]: set(mount[3].split(",")) for mount in mounts if mount[2] == "tmpfs"}
    assert f"size={expected.shm >> 10}k" in options["/dev/shm"]
    sizes = {"/tmp": 256 * MB, "/run": 16 * MB, "/work": GB} if expected.read_only else {}
    for folder, size in sizes.items():
        assert {f"size={size >> 10}k", "nosuid", "nodev"} <= options[folder]
        assert box.spec.engine != "docker" or any(option.startswith("nr_inodes=") for option in options[folder])
    for folder, said in options.items():  # one without a size is as large as half of the machine's memory
        assert any(option.startswith("size=") for option in said) or "ro" in said or folder == "/sys/fs/cgroup", folder


def test_where_one_may_write(known: tuple[Sandbox, Expected]) -> None:
    box, expected = known
    written = box.run("for f in / /usr /etc /opt /var; do (: >$f/x) 2>/dev/null && echo $f; done").stdout.split()
    assert written == ([] if expected.read_only else ["/", "/usr", "/etc", "/opt", "/var"])
    assert box.run("for f in /tmp /work /dev/shm; do : >$f/x || exit; done").exit_code == 0
    assert box.run("printf '#!/bin/sh\\necho ran' >/tmp/p; chmod +x /tmp/p; /tmp/p").stdout == "ran\n"


EVERYWHERE = (
    "use File::Find; find({no_chdir => 1, wanted => sub { return $File::Find::prune = 1 if m(^/(PRUNED)$); "
    "return unless -d && !-l; print qq($_\\n) if open my $f, q(>), qq($_/.tried) and unlink qq($_/.tried) }}, q(/))"
)


def test_what_can_be_written_in_sealed_is_in_memory(known: tuple[Sandbox, Expected]) -> None:
    """A file is tried in every folder that there is."""
    box, expected = known
    if expected.read_only:
        # With bubblewrap /usr is this machine's, and may be large.
        code = EVERYWHERE.replace("PRUNED", "proc|sys|usr" if box.spec.engine == "bubblewrap" else "proc|sys")
        folders = box.run(f"perl -e '{code}' 2>/dev/null", timeout=90, check=True).stdout.split()
        assert {"/tmp", "/work"} <= set(folders)
        outside = [
            f for f in folders if not f.startswith(("/tmp", "/work", "/run", "/dev/shm", "/dev/mqueue", "/var/tmp"))
        ]
        assert outside == []


def test_no_log_is_kept(known: tuple[Sandbox, Expected]) -> None:
    """Else whatever is printed would grow on this machine's disk."""
    box, _ = known
    if isinstance(engine := find_engine(box.spec), DockerEngine):
        facts = engine._connect().api.inspect_container(box._machine.id)  # type: ignore[union-attr] # it runs
        assert facts["HostConfig"]["LogConfig"]["Type"] == "none"
        assert not facts.get("LogPath")


@pytest.fixture(params=["docker", "podman"])
def hostile(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """An engine, and an image that declares a folder as a volume, and has a check of its health."""
    engine = find_engine(SandboxSpec(engine=request.param))
    assert isinstance(engine, DockerEngine)
    api, name = engine._connect().api, f"sandbox-volume-{secrets.token_hex(4)}"
    made = api.create_container("busybox:latest", ["true"])["Id"]
    try:
        changes = ["VOLUME /data"]
        if engine.name == "docker":  # Podman can make no such image, and runs its check only with systemd
            changes.append("HEALTHCHECK --interval=1s --timeout=5s CMD echo checked >>/tmp/health")
        api.commit(made, name, "latest", changes=changes)
    finally:
        engine.remove(made)
    yield engine.name, f"{name}:latest"
    api.remove_image(f"{name}:latest")


@pytest.mark.attack("limits", "fill a folder that the image declares as a volume of its own", bounded=True)
def test_a_volume_of_the_image(hostile: tuple[str, str]) -> None:
    """It would be a folder on this machine's disk, of any size."""
    engine, image = hostile
    with Sandbox(image, engine=engine, profile="sealed") as box:
        result = box.run("head -c 40000000 /dev/zero >/data/full; ls -l /data/full")
        size = int(result.stdout.split()[4])
    if size >= 40_000_000:
        raise Breach(result.output)
    assert 1 << 20 <= size <= 16 << 20, result.output


@pytest.mark.attack("processes", "have the engine run the image's check of its health")
@pytest.mark.parametrize("hostile", ["docker"], indirect=True)
def test_a_check_of_the_image(hostile: tuple[str, str]) -> None:
    """It would run before the limits are proved, again and again, and in `sealed` as the user of the keeper."""
    engine, image = hostile
    with Sandbox(image, engine=engine) as box:
        if found := box.run("sleep 2.5; cat /tmp/health 2>/dev/null").stdout:
            raise Breach(found)


@pytest.mark.attack("profiles", "reach what an engine masks in /proc and /sys")
def test_masked_and_read_only(known: tuple[Sandbox, Expected]) -> None:
    box, _ = known
    read = (
        "for f in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug; do head -c 1 $f 2>/dev/null; done | wc -c"
    )
    if box.spec.engine != "bubblewrap":  # nothing there is another's: a user without rights, in namespaces of its own
        assert box.run(read).stdout == "0\n"
    assert box.run("ls -A /sys/firmware /proc/acpi 2>/dev/null | grep -v :").stdout.split() == []
    groups = "/sys/fs/cgroup/memory"
    files = [
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/proc/irq/0/smp_affinity",
        "/sys/kernel/uevent_helper",
    ]
    files += [f"{groups}/memory.limit_in_bytes", f"{groups}/cgroup.procs", f"{groups}/notify_on_release"]
    write = f"for f in {' '.join(files)}"
    assert box.run(f"{write}; do (: >>$f) 2>/dev/null && echo $f; done").stdout == ""


def test_names_and_namespaces(known: tuple[Sandbox, Expected]) -> None:
    box, expected = known
    assert box.run("cat /proc/sys/kernel/hostname").stdout == "sandbox\n"
    kinds = ["ipc", "mnt", "net", "pid", "uts"]
    if box.spec.engine != "podman":  # which makes one only with version 2 of control groups
        kinds.append("cgroup")
    inside = box.run("readlink " + " ".join(f"/proc/self/ns/{kind}" for kind in kinds)).stdout.split()
    assert len(inside) == len(kinds)
    assert not set(inside) & {str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in kinds}
    interfaces = str(box.status()["network interfaces"]).split(", ")
    assert sorted(interfaces) == sorted(expected.interfaces.split(", "))
