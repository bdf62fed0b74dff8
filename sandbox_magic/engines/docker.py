"""Docker as an engine. The only module that knows the Docker SDK.

A container's first process is a *keeper*: it reads its attached stdin and ends with it. This process holds that
attach. However this process ends, the engine then closes the keeper's stdin and the container is gone, with everything
in it (`OpenStdin`, `StdinOnce`, `AutoRemove`). Sessions are execs beside it, under another user id than the keeper's.
"""

from __future__ import annotations

import io
import select
import tarfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sandbox_magic.engines import pull
from sandbox_magic.engines.base import (
    IMAGES,
    LIMITS,
    NETWORK_SWITCH,
    ROOT,
    Engine,
    Found,
    Machine,
    Owner,
    Probe,
    Progress,
    silent,
)
from sandbox_magic.engines.endpoints import connect
from sandbox_magic.errors import EngineError, EngineUnavailable, ImageNotFound
from sandbox_magic.spec import DEFAULT_IMAGE, SandboxSpec
from sandbox_magic.transport import MultiplexedSocket, close_in_child, close_socket

if TYPE_CHECKING:
    from docker import DockerClient

LABEL = "sandbox-magic"
KEEPER_USER = "64711:64711"  # in no image's passwd; root without CAP_KILL cannot signal it
# Where the session may be root the container must start as root: else no-new-privileges leaves an exec as root without
# a single capability. The keeper then changes its own user id, with what the image has (util-linux, or busybox's su).
_KEEPER = [
    "sh",
    "-c",
    """trap "" HUP INT QUIT TERM
keep=': sandbox-keeper; while read -r line; do :; done' ids='--reuid=64711 --regid=64711 --clear-groups'
[ "$(id -u)" = 0 ] || eval "$keep"
setpriv $ids true </dev/null 2>/dev/null && exec setpriv $ids sh -c "$keep"
su -s /bin/sh nobody -c true </dev/null >/dev/null 2>&1 && exec su -s /bin/sh nobody -c "$keep"
eval "$keep"
""",
    "sandbox-keeper",
]
_GONE_SECONDS = 10
_ENDING_SECONDS = 0.2  # in which a container that is ending has ended
_BRIDGE = "bridge"


def container_body(spec: SandboxSpec, *, labels: Mapping[str, str], cpus: float) -> dict[str, Any]:
    """Return the arguments of the create request for `spec`; no I/O, so that a unit test can read them.

    Args:
        spec: The wish.
        labels: What is written on the container.
        cpus: How many processors the engine has; asking for more is refused by it.
    """
    profile = spec.limits
    memory = spec.memory or profile.memory
    host: dict[str, Any] = {
        "auto_remove": True,
        "init": True,  # reaps orphans, and is a process 1 that no signal from inside ends
        "log_config": {"Type": "none"},  # json-file is unbounded and costs 4/5 of the throughput
        "network_mode": _BRIDGE,  # taken off before the start; created with none it could never go online
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
    return {
        "image": spec.image or DEFAULT_IMAGE,
        "command": _KEEPER[1:],
        "entrypoint": _KEEPER[:1],
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


def _open_folder(path: str) -> bytes:
    """Return an archive with one folder that everybody may write into, as /tmp is."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        member = tarfile.TarInfo(path.lstrip("/"))
        member.type, member.mode = tarfile.DIRTYPE, 0o1777
        archive.addfile(member)
    return data.getvalue()


class DockerMachine(Machine):
    """A running container."""

    def __init__(self, client: DockerClient, ident: str, keeper: Any, spec: SandboxSpec) -> None:
        self.id = ident
        self.capabilities = DockerEngine.capabilities
        self._api = client.api
        self._keeper = keeper
        self._user = spec.user or spec.limits.user or ""
        self._cwd = spec.cwd
        self._closed = False

    def open(
        self, argv: Sequence[str], *, user: str | None = None, env: Mapping[str, str] | None = None
    ) -> MultiplexedSocket:
        """Start a process as an exec. The SDK may lose what comes with the answer, so it must be spoken to first."""
        exec_id = _call(
            self._api.exec_create,
            self.id,
            list(argv),
            stdin=True,
            user=self._user if user is None else user,
            environment=dict(env or {}),
            workdir=self._cwd,
        )["Id"]
        stream = _call(self._api.exec_start, exec_id, socket=True)
        return MultiplexedSocket(_raw(stream), exit_code=lambda: self._exit_code(exec_id), owner=stream)

    def _exit_code(self, exec_id: str) -> int | None:
        """Ask for an exec's exit code; the engine learns it a moment after the streams have ended."""
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            try:
                facts = self._api.exec_inspect(exec_id)
            except Exception:  # noqa: BLE001 # the container, and with it the answer, may be gone: unknown
                return None
            if not facts.get("Running") and facts.get("ExitCode") is not None:
                return int(facts["ExitCode"])
            time.sleep(0.005)  # the engine offers no way to wait for an exec
        return None

    def describe(self) -> dict[str, object]:
        facts = _call(self._api.inspect_container, self.id)
        host = facts["HostConfig"]
        return {
            "engine": "docker",
            "container": self.id[:12],
            "image": facts["Config"]["Image"],
            "image id": facts["Image"].removeprefix("sha256:")[:12],
            "runtime": host.get("Runtime", ""),
            "online": bool(facts["NetworkSettings"]["Networks"]),
            "memory limit": host["Memory"],
            "pids limit": host["PidsLimit"],
            "cpus limit": host["NanoCpus"] / 1e9,
            "oom killed": facts["State"]["OOMKilled"],
        }

    def alive(self) -> bool:
        # The keeper never prints: its stream becomes readable when it ends, a moment before the engine knows.
        if self._closed or _readable(_raw(self._keeper), _ENDING_SECONDS):
            return False
        try:
            return bool(self._api.inspect_container(self.id)["State"]["Running"])
        except Exception:  # noqa: BLE001 # gone, or the engine is: not usable either way
            return False

    def network(self, online: bool) -> None:
        networks = _call(self._api.inspect_container, self.id)["NetworkSettings"]["Networks"]
        if online and not networks:
            _call(self._api.connect_container_to_network, self.id, _BRIDGE)
        elif not online:
            for network in networks:
                _call(self._api.disconnect_container_from_network, self.id, network, force=True)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        from docker.errors import APIError, NotFound  # noqa: PLC0415

        try:
            self._api.remove_container(self.id, v=True, force=True)
        except NotFound:
            pass
        except APIError as error:
            if error.status_code != 409:  # 409: AutoRemove is already at it
                raise EngineError(f"the engine could not remove {self.id[:12]}: {error.explanation}") from None
            self._wait_gone()
        except OSError as error:
            raise EngineError(f"the engine does not answer; {self.id[:12]} ends with it ({error})") from None
        finally:
            close_socket(_raw(self._keeper), self._keeper)

    def _wait_gone(self) -> None:
        deadline = time.monotonic() + _GONE_SECONDS
        while time.monotonic() < deadline and self._exists():
            time.sleep(0.01)  # `wait(condition="removed")` answers 404 or hangs in this race, by engine version

    def _exists(self) -> bool:
        from docker.errors import NotFound  # noqa: PLC0415

        try:
            self._api.inspect_container(self.id)
        except NotFound:
            return False
        return True


class DockerEngine(Engine):
    """A Docker Engine, wherever it is."""

    name = "docker"
    capabilities = frozenset({IMAGES, LIMITS, NETWORK_SWITCH, ROOT})

    def __init__(self, docker_host: str | None = None) -> None:
        self._docker_host = docker_host
        self._client: DockerClient | None = None
        self._cpus = 1.0
        self.endpoint = ""

    def connect(self) -> None:
        self._connect()

    def _connect(self) -> DockerClient:
        if self._client is None:
            client, endpoint = connect(self._docker_host)
            self._cpus = float(_call(client.info).get("NCPU", 1))
            self.endpoint = f"{endpoint.url} ({endpoint.origin})"
            self._client = client
        return self._client

    def probe(self) -> Probe:
        try:
            client = self._connect()
            version = client.version()
        except Exception as error:  # noqa: BLE001 # a probe reports, whatever it is
            return Probe(self.name, False, self._docker_host or "", detail=str(error))
        runtimes = ", ".join(sorted(client.info().get("Runtimes", {})))
        return Probe(self.name, True, self.endpoint, version.get("Version", ""), f"runtimes: {runtimes}")

    def start(self, spec: SandboxSpec, *, name: str = "", progress: Progress = silent) -> DockerMachine:
        self.check(spec)
        client = self._connect()
        api = client.api
        labels = {
            LABEL: "1",
            f"{LABEL}.name": name,
            f"{LABEL}.created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        arguments = container_body(spec, labels=labels | Owner.me().labels(), cpus=self._cpus)
        arguments["host_config"] = api.create_host_config(**arguments["host_config"])
        ident = self._create(arguments, arguments["image"], progress)
        keeper = None
        try:
            if not (spec.network or spec.limits.online):
                _call(api.disconnect_container_from_network, ident, _BRIDGE, force=True)
            keeper = _call(api.attach_socket, ident, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
            close_in_child(_raw(keeper))
            if spec.user and not spec.limits.read_only and not spec.mounts:
                # Another user than root could not write where the session starts. Not started yet, no volumes, not
                # compressed: none of the holes of the archive call apply.
                _call(api.put_archive, ident, "/", _open_folder(spec.cwd))
            _call(api.start, ident)
        except BaseException:
            if keeper is not None:
                close_socket(_raw(keeper), keeper)
            self.remove(ident)
            raise
        return DockerMachine(client, ident, keeper, spec)

    def _create(self, arguments: dict[str, Any], image: str, progress: Progress) -> str:
        from docker.errors import ImageNotFound as Missing  # noqa: PLC0415

        api = self._connect().api
        try:
            return str(api.create_container(**arguments)["Id"])
        except Missing:
            pull.image(api, image, progress)
        except Exception as error:  # noqa: BLE001 # translated below
            raise _translated(error) from None
        return str(_call(api.create_container, **arguments)["Id"])

    def found(self) -> list[Found]:
        containers = _call(self._connect().api.containers, all=True, filters={"label": LABEL})
        return [Found(entry["Id"], entry.get("Labels") or {}) for entry in containers]

    def remove(self, ident: str) -> None:
        from docker.errors import APIError, NotFound  # noqa: PLC0415

        try:
            self._connect().api.remove_container(ident, v=True, force=True)
        except NotFound:
            return
        except APIError as error:
            if error.status_code != 409:
                raise _translated(error) from None


def _call(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Call the SDK, and raise what it raises as an error of ours."""
    try:
        return function(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 # every failure of the SDK is one of the engine
        raise _translated(error) from None


def _translated(error: Exception) -> EngineError:
    from docker.errors import APIError, NotFound  # noqa: PLC0415
    from docker.errors import ImageNotFound as Missing  # noqa: PLC0415

    if isinstance(error, EngineError):
        return error
    if isinstance(error, Missing):
        return ImageNotFound("", str(error.explanation))
    if isinstance(error, NotFound):
        return EngineError(f"the container is gone: {error.explanation}")
    if isinstance(error, APIError):
        return EngineError(f"the Docker Engine refused: {error.explanation or error}")
    return EngineUnavailable(f"the Docker Engine does not answer any more: {' '.join(str(error).split())[:200]}")


def _readable(sock: Any, timeout: float) -> bool:
    poll = select.poll()  # `select` refuses descriptors above 1023
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def _raw(stream: Any) -> Any:
    """Return the socket below what the SDK hands out: the one place that knows its shapes."""
    return getattr(stream, "_sock", stream)
