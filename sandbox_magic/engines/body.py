"""The create request for a container: a pure function from the wish, and the archive of its first folder."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

from sandbox_magic.engines.keeper import KEEPER_USER, keeper
from sandbox_magic.spec import DEFAULT_IMAGE, FILES_HARD, FILES_SOFT, Folder, SandboxSpec

BRIDGE = "bridge"
_VOLUME, _VOLUME_FILES = 16 << 20, 1 << 12


def container_body(  # what the engine adds to the wish
    spec: SandboxSpec,
    *,
    labels: Mapping[str, str],
    cpus: float,
    lease: int | None = None,
    runtime: str | None = None,
    calls: str | None = None,
    volumes: Iterable[str] = (),
) -> dict[str, Any]:
    """Return the arguments of the create request for `spec`; no I/O, so that a unit test can read them.

    Args:
        spec: The wish.
        labels: What is written on the container.
        cpus: How many processors the engine has; asking for more is refused by it.
        lease: The keeper's.
        runtime: The engine's runtime; `None` is its own choice.
        calls: The table of system calls, as the engine wants to be told of it; `None` is its own.
        volumes: The folders that the image declares as volumes; see `_in_memory`.
    """
    profile = spec.limits
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
        "use_config_proxy": False,  # the SDK would tell every sandbox the user's proxies, with their passwords
        "labels": dict(labels),
        "stop_signal": "SIGKILL",
        "host_config": _limits(spec, cpus) | _walls(spec, calls, volumes) | {"runtime": runtime},
    }


def processors(spec: SandboxSpec, cpus: float) -> float:
    """Return how many processors' time it gets of an engine that has `cpus`."""
    return min(spec.cpus or min(spec.limits.cpus, cpus), cpus)


def _limits(spec: SandboxSpec, cpus: float) -> dict[str, Any]:
    ulimits = [
        {"Name": "nofile", "Soft": FILES_SOFT, "Hard": FILES_HARD},
        {"Name": "core", "Soft": 0, "Hard": 0},
    ]
    if spec.limits.file_size is not None:
        ulimits.append({"Name": "fsize", "Soft": spec.limits.file_size, "Hard": spec.limits.file_size})
    return {
        "pids_limit": spec.pids_most,
        "mem_limit": spec.memory_bytes,
        "memswap_limit": spec.memory_bytes,  # unequal values would allow swap
        "nano_cpus": int(processors(spec, cpus) * 1e9),
        "ulimits": ulimits,
        "shm_size": spec.shm.size,
        "log_config": {"Type": "none"},  # json-file is unbounded and costs 4/5 of the throughput
    }


def _walls(spec: SandboxSpec, calls: str | None, volumes: Iterable[str]) -> dict[str, Any]:
    profile = spec.limits
    host: dict[str, Any] = {
        "auto_remove": True,
        "init": True,  # reaps orphans, and is a process 1 that no signal from inside ends
        "network_mode": BRIDGE,  # taken off before the start; created with none it could never go online
        "security_opt": ["no-new-privileges"],
        "ipc_mode": "private",
        "cgroupns": "private",  # with version 1 the engine's default shows where the host keeps its groups
        "mounts": [
            {
                "Type": "bind",
                "Source": mount.source,
                "Target": mount.target,
                "ReadOnly": not mount.writable,
                # What is mounted below a read-only source would be writable, so it is left out.
                "BindOptions": {"Propagation": "rprivate", "NonRecursive": not mount.writable},
            }
            for mount in spec.mounts
        ],
    }
    if profile.capabilities is None:
        host["cap_drop"] = list(profile.dropped)  # and the engine's own table of system calls
    else:
        host["cap_drop"], host["cap_add"] = ["ALL"], list(profile.capabilities)
        host["security_opt"] += [f"seccomp={calls}"] if calls else []
    if profile.read_only:
        host["read_only"] = True
        host["tmpfs"] = _in_memory(spec, volumes)
    return host


def _in_memory(spec: SandboxSpec, volumes: Iterable[str]) -> dict[str, str]:
    """Return the folders in memory of a sandbox with a read-only root, each with its options.

    What the image declares as a volume would be a folder on the engine's disk, without a bound: it is a small one in
    memory instead.
    """
    owner = _numeric(spec.user or spec.limits.user)
    known = {*(folder.path for folder in spec.folders), *(mount.target for mount in spec.mounts)}
    more = {str(PurePosixPath(path)) for path in volumes} - {str(PurePosixPath(path)) for path in known}
    size = min(_VOLUME, spec.memory_bytes // 32 // max(1, len(more)))
    return {
        folder.path: f"rw,{'exec' * folder.programs or 'noexec'},nosuid,nodev,size={folder.size},mode=1777"
        f",nr_inodes={folder.files}" + owner * (folder.path != "/tmp")  # noqa: S108 # inside; it is everybody's
        for folder in (*spec.folders, *(Folder(path, size, _VOLUME_FILES, programs=False) for path in sorted(more)))
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


def home(spec: SandboxSpec) -> str:
    """Return where a session is at home; empty for a user whom only the image knows."""
    if spec.user is None and spec.limits.read_only:
        return spec.cwd  # its own user is in no image; this folder is in memory, and that user's
    user = (spec.user or spec.limits.user or "").partition(":")[0]
    return "/root" if user in {"0", "root"} else ""
