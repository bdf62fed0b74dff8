"""The create request for a container: a pure function from the wish, and the archive of its first folder."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from typing import Any

from sandbox_magic.engines.keeper import KEEPER_USER, keeper
from sandbox_magic.spec import DEFAULT_IMAGE, SandboxSpec

BRIDGE = "bridge"


def container_body(
    spec: SandboxSpec, *, labels: Mapping[str, str], cpus: float, lease: int | None = None, runtime: str | None = None
) -> dict[str, Any]:
    """Return the arguments of the create request for `spec`; no I/O, so that a unit test can read them.

    Args:
        spec: The wish.
        labels: What is written on the container.
        cpus: How many processors the engine has; asking for more is refused by it.
        lease: The keeper's.
        runtime: The engine's runtime; `None` is its own choice.
    """
    profile = spec.limits
    memory = spec.memory or profile.memory
    host: dict[str, Any] = {
        "auto_remove": True,
        "init": True,  # reaps orphans, and is a process 1 that no signal from inside ends
        "log_config": {"Type": "none"},  # json-file is unbounded and costs 4/5 of the throughput
        "network_mode": BRIDGE,  # taken off before the start; created with none it could never go online
        "security_opt": ["no-new-privileges"],
        "pids_limit": spec.pids or profile.pids,
        "mem_limit": memory,
        "memswap_limit": memory,  # unequal values would allow swap
        "nano_cpus": int(min(spec.cpus or min(profile.cpus, cpus), cpus) * 1e9),
        "ulimits": [
            {"Name": "nofile", "Soft": 1024, "Hard": 4096},
            {"Name": "core", "Soft": 0, "Hard": 0},
        ],
        "shm_size": 64 << 20,
        "ipc_mode": "private",
        "runtime": runtime,
        "mounts": [
            {
                "Type": "bind",
                "Source": mount.source,
                "Target": mount.target,
                "ReadOnly": not mount.writable,
                "BindOptions": {"Propagation": "rprivate"},
            }
            for mount in spec.mounts
        ],
    }
    if profile.capabilities is None:
        host["cap_drop"] = list(profile.dropped)
    else:
        host["cap_drop"], host["cap_add"] = ["ALL"], list(profile.capabilities)
    if profile.read_only:
        owner = _numeric(spec.user or profile.user)
        host["read_only"] = True
        host["tmpfs"] = {
            "/tmp": "rw,exec,nosuid,nodev,size=256m,mode=1777,nr_inodes=65536",  # noqa: S108 # the sandbox's own
            "/run": "rw,nosuid,nodev,size=16m,mode=1777,nr_inodes=4096",
            "/work": f"rw,exec,nosuid,nodev,size=1g,mode=1777,nr_inodes=262144{owner}",
        }
    command = keeper(lease)
    return {
        "image": spec.image or DEFAULT_IMAGE,
        "command": command[1:],
        "entrypoint": command[:1],
        "user": KEEPER_USER if profile.read_only else "0:0" if profile.capabilities is not None else spec.user,
        "working_dir": spec.cwd,
        "hostname": "sandbox",
        "stdin_open": True,
        "tty": False,
        "detach": False,  # with stdin_open this is how the SDK sets StdinOnce
        "labels": dict(labels),
        "stop_signal": "SIGKILL",
        "host_config": host,
    }


def _numeric(user: str | None) -> str:
    """Return the tmpfs options that give a folder to this user; runc keeps the folder's mode whatever is asked for."""
    uid, _, gid = (user or "").partition(":")
    return f",uid={uid},gid={gid or uid}" if uid.isdigit() and (gid or uid).isdigit() else ""


def open_folder(path: str) -> bytes:
    """Return an archive with one folder that everybody may write into, as /tmp is."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        member = tarfile.TarInfo(path.lstrip("/"))
        member.type, member.mode = tarfile.DIRTYPE, 0o1777
        archive.addfile(member)
    return data.getvalue()
