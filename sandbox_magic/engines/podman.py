"""Podman as an engine, through the socket on which it speaks Docker's language.

Measured with Podman 4.3: `StdinOnce` is ignored, but the end of the attached connection closes the keeper's stdin all
the same. Nobody promises that, so the keeper has a lease too. To attach to a container that was not started prepares
it: its network is set up, and nothing of the image runs yet.
"""

from __future__ import annotations

import contextlib
import platform
import re
import resource
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from sandbox_magic.engines import limits, sdk, seccomp
from sandbox_magic.engines.base import RUNTIMES
from sandbox_magic.engines.docker import DockerEngine
from sandbox_magic.engines.endpoints import Connection, first, podman_places
from sandbox_magic.errors import EngineError, EngineUnavailable
from sandbox_magic.spec import SandboxSpec

# Podman copies this machine's /etc/hosts into every sandbox: names and addresses of a network that it shall not see.
_HOSTS = "printf '127.0.0.1\\tlocalhost sandbox\\n::1\\tlocalhost\\n' 2>/dev/null >/etc/hosts\n"
_NO_HOSTS = {"Type": "bind", "Source": "/dev/null", "Target": "/etc/hosts", "ReadOnly": True}
_AGAIN = (0.05, 0.1, 0.2, 0.5, 1.0)  # seconds
_PROCESSES = 32768  # more than any profile's; the smallest limit of process ids


class PodmanEngine(DockerEngine):
    """A Podman, as root or rootless."""

    name = "podman"
    capabilities = DockerEngine.capabilities - {RUNTIMES}  # its socket knows of none; it lists those it could have
    local_lease = 60

    def _find(self) -> Connection:
        return first(podman_places(self._docker_host), podman=True)

    def table(self) -> str | None:
        """Return a path, which the service opens: it must see our files."""
        sees = platform.system() == "Linux" and self._connection is not None and not self._connection.endpoint.remote
        return str(seccomp.PROFILE) if sees and seccomp.known(self.about.architecture) else None

    def wish(self, spec: SandboxSpec) -> limits.Wish:
        asked = super().wish(spec)
        return replace(asked, folders=tuple(replace(folder, files=0) for folder in asked.folders))

    def body(self, spec: SandboxSpec, labels: Mapping[str, str], volumes: Iterable[str] = ()) -> dict[str, Any]:
        return podman_body(super().body(spec, labels, volumes))

    def _listed(self, label: str) -> list[dict[str, Any]]:
        """Ask again: it answers with a failure where a container of the list ends in this moment."""
        for pause in _AGAIN:
            try:
                return super()._listed(label)
            except EngineUnavailable:
                raise
            except EngineError:
                time.sleep(pause)  # nothing tells when it has ended
        return super()._listed(label)

    def remove(self, ident: str) -> None:
        """Stop it first: of one that was prepared and never started a removal alone forgets a file."""
        with contextlib.suppress(EngineError):  # it never was prepared, or is gone
            sdk.call(self._connect().api.stop, ident, timeout=0)
        super().remove(ident)


def podman_body(body: dict[str, Any]) -> dict[str, Any]:
    """Return Docker's create request in Podman's dialect.

    Podman raises the limit of processes of a user above its own, which needs a capability that it may not have, unless
    one is asked for. It knows no inodes and owners of folders in memory; the mode that is asked for counts there.
    """
    host = body["host_config"]
    if any(PurePosixPath("/etc/hosts").is_relative_to(mount["Target"]) for mount in host["mounts"]):
        pass  # the user has named one, which is not ours to write to
    elif host.get("read_only"):
        host["mounts"].append(_NO_HOSTS)
    else:  # what starts the sandbox is root, or as `open` may have it, the image's user, who then sees them
        body["command"][1] = _HOSTS + body["command"][1]
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    processes = min(_PROCESSES, hard) if hard != resource.RLIM_INFINITY else _PROCESSES
    host["ulimits"].append({"Name": "nproc", "Soft": processes, "Hard": processes})
    for folder, options in host.get("tmpfs", {}).items():
        host["tmpfs"][folder] = re.sub(r",(nr_inodes|uid|gid)=\d+", "", options)
    if host.get("read_only"):  # or Podman adds one of its own, as large as half the machine's memory
        host["tmpfs"]["/var/tmp"] = host["tmpfs"]["/run"]  # noqa: S108 # the sandbox's own
    return body
