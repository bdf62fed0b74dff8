"""The create request: what a wish becomes, read without an engine."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from sandbox_magic import Mount, SandboxSpec
from sandbox_magic.engines.body import container_body, open_folder
from sandbox_magic.engines.keeper import KEEPER_USER
from sandbox_magic.engines.podman import podman_body
from sandbox_magic.spec import PROFILES


def host(spec: SandboxSpec, cpus: float = 8) -> dict:
    return container_body(spec, labels={}, cpus=cpus)["host_config"]


def test_the_request_of_standard() -> None:
    body = container_body(SandboxSpec(), labels={"a": "b"}, cpus=2)
    host = body["host_config"]
    assert body["user"] == "0:0"  # or an exec as root would have no capability; the keeper lowers itself
    assert container_body(SandboxSpec(profile="sealed"), labels={}, cpus=2)["user"] == KEEPER_USER
    assert (body["stdin_open"], body["tty"], body["detach"]) == (True, False, False)
    assert host["cap_drop"] == ["ALL"]
    assert host["cap_add"] == ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"]
    assert host["security_opt"] == ["no-new-privileges"]
    assert host["mem_limit"] == host["memswap_limit"] == 4 << 30
    assert host["pids_limit"] == 1024
    assert host["log_config"] == {"Type": "none"}
    assert (host["auto_remove"], host["init"]) == (True, True)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_is_bounded(profile: str) -> None:
    known = PROFILES[profile]
    asked = host(SandboxSpec(profile=profile))
    assert asked["mem_limit"] == asked["memswap_limit"] == known.memory
    assert asked["pids_limit"] == known.pids
    assert asked["nano_cpus"] == known.cpus * 1e9
    file_size = {} if known.file_size is None else {"fsize": known.file_size}
    assert {limit["Name"]: limit["Hard"] for limit in asked["ulimits"]} == {"nofile": 4096, "core": 0} | file_size
    assert asked["security_opt"][0] == "no-new-privileges"
    assert asked["shm_size"] == known.shm
    assert asked["cgroupns"] == "private"
    assert asked["log_config"] == {"Type": "none"}
    assert asked["ipc_mode"] == "private"
    assert not {"privileged", "devices", "pid_mode", "restart_policy", "userns_mode"} & set(asked)


@pytest.mark.parametrize(
    ("profile", "user", "added", "dropped"),
    [
        ("sealed", KEEPER_USER, [], ["ALL"]),
        ("standard", "0:0", ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"], ["ALL"]),
        ("open", None, None, ["NET_RAW", "MKNOD"]),
    ],
)
def test_users_and_capabilities(profile: str, user: str | None, added: list[str] | None, dropped: list[str]) -> None:
    body = container_body(SandboxSpec(profile=profile), labels={}, cpus=2)
    assert body["user"] == user
    assert body["host_config"].get("cap_add") == added
    assert body["host_config"]["cap_drop"] == dropped


def test_what_is_asked_wins_over_the_profile() -> None:
    asked = host(SandboxSpec(memory=64 << 20, pids=50, cpus=0.5))
    assert (asked["mem_limit"], asked["memswap_limit"]) == (64 << 20, 64 << 20)
    assert (asked["pids_limit"], asked["nano_cpus"]) == (50, 5 * 10**8)


def test_cpus_never_exceed_the_engine() -> None:
    assert host(SandboxSpec(), cpus=1)["nano_cpus"] == 10**9
    assert host(SandboxSpec(cpus=8), cpus=2)["nano_cpus"] == 2 * 10**9


def test_sealed_is_read_only_with_bounded_folders() -> None:
    asked = host(SandboxSpec(profile="sealed"))
    assert asked["read_only"] is True
    assert set(asked["tmpfs"]) == {"/tmp", "/run", "/work"}
    assert all("size=" in options and "nr_inodes=" in options for options in asked["tmpfs"].values())
    assert asked["tmpfs"]["/work"].endswith(",uid=10001,gid=10001")
    assert "uid=" not in host(SandboxSpec(profile="sealed", user="nobody"))["tmpfs"]["/work"]
    assert "read_only" not in host(SandboxSpec())


def test_what_an_image_declares_as_a_volume_is_bounded_in_sealed(tmp_path: Path) -> None:
    spec = SandboxSpec(profile="sealed", memory=64 << 20, mounts=(Mount(str(tmp_path), "/in"),))
    volumes = ["/data", "/work/", "/in", "/more/of/it"]
    asked = container_body(spec, labels={}, cpus=2, volumes=volumes)["host_config"]["tmpfs"]
    assert set(asked) == {"/tmp", "/run", "/work", "/data", "/more/of/it"}
    sizes = [int(options.partition("size=")[2].partition(",")[0]) for options in asked.values()]
    assert sum(sizes) + spec.shm.size < 64 << 20, "a full one is an error, not the end of processes"
    assert asked["/work"] == host(spec)["tmpfs"]["/work"]


def test_no_setting_of_the_users_docker_reaches_a_sandbox() -> None:
    assert container_body(SandboxSpec(), labels={}, cpus=2)["use_config_proxy"] is False


@pytest.mark.parametrize("profile", PROFILES)
def test_the_table_of_system_calls_is_ours_but_in_open(profile: str) -> None:
    options = container_body(SandboxSpec(profile=profile), labels={}, cpus=2, calls="{}")["host_config"]["security_opt"]
    assert options == ["no-new-privileges", *["seccomp={}"] * (profile != "open")]


@pytest.mark.parametrize("memory", [64 << 20, 512 << 20, 2 << 30])
def test_folders_in_memory_are_full_before_the_memory_is(memory: int) -> None:
    spec = SandboxSpec(profile="sealed", memory=memory)
    sizes = {folder.path: folder.size for folder in (spec.shm, *spec.folders)}
    assert sum(sizes.values()) < memory
    assert f"size={sizes['/work']}," in host(spec)["tmpfs"]["/work"]


def test_mounts(tmp_path: Path) -> None:
    mounts = host(SandboxSpec(mounts=(Mount(str(tmp_path), "/in"), Mount(str(tmp_path), "/out", True))))["mounts"]
    assert [(mount["Target"], mount["ReadOnly"]) for mount in mounts] == [("/in", True), ("/out", False)]
    assert [mount["BindOptions"] for mount in mounts] == [
        {"Propagation": "rprivate", "NonRecursive": True},  # what is mounted below would not be read-only
        {"Propagation": "rprivate", "NonRecursive": False},
    ]


def test_the_first_folder_is_open_to_all() -> None:
    with tarfile.open(fileobj=io.BytesIO(open_folder("/work/here"))) as archive:
        (member,) = archive
    assert (member.name, member.mode, member.isdir()) == ("work/here", 0o1777, True)


@pytest.mark.parametrize(("lease", "arguments"), [(None, []), (60, ["60"])])
def test_the_keeper_gets_its_lease(lease: int | None, arguments: list[str]) -> None:
    body = container_body(SandboxSpec(), labels={}, cpus=2, lease=lease)
    assert body["entrypoint"] == ["sh"]
    assert body["command"][2:] == ["sandbox-keeper", *arguments]


@pytest.mark.parametrize("target", ["/etc/hosts", "/etc", "/data"])
def test_podman_shows_no_hosts_of_this_machine_but_those_that_are_mounted(target: str, tmp_path: Path) -> None:
    mounts = (Mount(str(tmp_path), target, True),)
    named = target != "/data"
    for profile in ("sealed", "standard"):
        body = podman_body(container_body(SandboxSpec(profile=profile, mounts=mounts), labels={}, cpus=2))
        nothing = [mount for mount in body["host_config"]["mounts"] if mount["Source"] == "/dev/null"]
        written = ">/etc/hosts" in body["command"][1]
        assert (bool(nothing), written) == ((False, False) if named else (profile == "sealed", profile == "standard"))


def test_podman_gets_what_it_understands() -> None:
    asked = podman_body(container_body(SandboxSpec(profile="sealed"), labels={}, cpus=2))["host_config"]
    assert set(asked["tmpfs"]) == {"/tmp", "/run", "/work", "/var/tmp"}
    assert not any("nr_inodes" in options or "uid=" in options for options in asked["tmpfs"].values())
    assert all("size=" in options and "mode=1777" in options for options in asked["tmpfs"].values())
    limits = {limit["Name"]: (limit["Soft"], limit["Hard"]) for limit in asked["ulimits"]}
    assert limits["nofile"] == (1024, 4096)
    assert 0 < limits["nproc"][0] == limits["nproc"][1] <= 32768
