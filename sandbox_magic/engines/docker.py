"""Docker as an engine.

A container's first process is a *keeper*: it reads its attached stdin and ends with it. This process holds that
attach. However this process ends, the engine then closes the keeper's stdin and the container is gone, with everything
in it (`OpenStdin`, `StdinOnce`, `AutoRemove`). Sessions are execs beside it, under another user id than the keeper's.
Where the engine may not notice our end, the keeper also has a *lease*: it ends when it has heard nothing for a time.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from sandbox_magic.engines import limits, pull, sdk, seccomp
from sandbox_magic.engines.about import About
from sandbox_magic.engines.base import (
    IMAGES,
    LABEL,
    LEASE,
    NETWORK_SWITCH,
    RUNTIMES,
    Engine,
    Found,
    Machine,
    Owner,
    Probe,
    Progress,
    Sweep,
    labels_of_mine,
    silent,
)
from sandbox_magic.engines.body import BRIDGE, container_body, home_of, open_folder, processors
from sandbox_magic.engines.endpoints import Connection, docker_places, first
from sandbox_magic.engines.holes import components
from sandbox_magic.engines.janitor import janitor
from sandbox_magic.engines.keeper import KEEPER_USER
from sandbox_magic.errors import EngineError, EngineUnavailable, ImageNotFound, LimitNotEnforced
from sandbox_magic.spec import DEFAULT_IMAGE, SandboxSpec
from sandbox_magic.transport import MultiplexedSocket, close_in_child, close_socket, watcher

if TYPE_CHECKING:
    from docker import DockerClient

_GONE_SECONDS = 10
_ENDING_SECONDS = 0.2  # in which a container that is ending has ended
REMOTE_LEASE_SECONDS = 900  # a lost link may go unnoticed for hours; a notebook may sleep through lunch
_RENEWALS = 4  # in the time of a lease
_ANSWER_SECONDS = 10  # in which an engine answers what costs it nothing, or it is taken for dead
_START = f"{LABEL}.start"
_LOOKS = 3  # at the next starts and sweeps, for what a start may have left


class DockerMachine(Machine):
    """A running container."""

    aside = KEEPER_USER

    def __init__(self, engine: DockerEngine, api: Any, ident: str, keeper: Any, spec: SandboxSpec) -> None:
        self.id = ident
        self.capabilities = engine.abilities(spec)
        self._engine = engine
        self._api = api
        self._brisk = sdk.with_patience(api, _ANSWER_SECONDS)
        self._keeper = keeper
        self._user = spec.user or spec.limits.user or ""
        self._cwd = spec.cwd
        self.home = home_of(spec)
        self._gvisor = engine.about.gvisor(spec)
        self._drops = engine.about.drops_limits(engine.about.asked(spec) or engine.about.default)
        self._wish = engine.wish(spec)
        self._before = limits.setting(self._wish.file_size) if engine.about.drops_ulimits else ()
        self.in_memory = spec.folders if spec.limits.read_only else ()
        self._table = spec.limits.capabilities is not None and engine.table() is not None
        self._unlimited = "" if spec.limits.read_only else "what is written to the disk in all"
        self._closed = False
        self._renewal: int | None = None
        if lease := engine.lease(spec):
            sdk.raw(keeper).setblocking(False)
            self._renew()
            self._renewal = watcher().every(lease / _RENEWALS, self._renew)

    def _renew(self) -> None:
        with contextlib.suppress(OSError):  # a paused sandbox takes nothing, an ended one is found out by its session
            sdk.raw(self._keeper).send(b"\n")

    def open(
        self, argv: Sequence[str], *, user: str | None = None, env: Mapping[str, str] | None = None
    ) -> MultiplexedSocket:
        """Start a process as an exec. The SDK may lose what comes with the answer, so it must be spoken to first."""
        exec_id = sdk.call(
            self._brisk.exec_create,
            self.id,
            [*self._before, *argv],
            stdin=True,
            user=self._user if user is None else user,
            environment=dict(env or {}),
            workdir=self._cwd,
        )["Id"]
        stream = sdk.call(self._brisk.exec_start, exec_id, socket=True)
        return MultiplexedSocket(
            sdk.keep_alive(sdk.raw(stream)), exit_code=lambda: self._exit_code(exec_id), owner=sdk.owner(stream)
        )

    def _exit_code(self, exec_id: str) -> int | None:
        """Ask for an exec's exit code; the engine learns it a moment after the streams have ended."""
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            try:
                facts = self._brisk.exec_inspect(exec_id)
            except Exception:  # noqa: BLE001 # the container, and with it the answer, may be gone: unknown
                return None
            if not facts.get("Running") and facts.get("ExitCode") is not None:
                return int(facts["ExitCode"])
            time.sleep(0.005)  # the engine offers no way to wait for an exec
        return None

    def describe(self) -> dict[str, object]:
        facts = sdk.call(self._api.inspect_container, self.id)
        host = facts["HostConfig"]
        return {
            "engine": self._engine.name,
            "container": self.id[:12],
            "image": facts["Config"]["Image"],
            "image id": facts["Image"].removeprefix("sha256:")[:12],
            "runtime": self._engine.about.named(host.get("Runtime", "")),
            "online": bool(facts["NetworkSettings"]["Networks"]),
            "memory limit": host["Memory"],
            "pids limit": host["PidsLimit"],
            "cpus limit": host["NanoCpus"] / 1e9,
            "limits by": "nothing: the runtime drops them" if self._drops else "the engine",
            "oom killed": facts["State"]["OOMKilled"],
            "seccomp profile": "ours" if self._table else "the engine's own",
        } | ({"not limited": self._unlimited} if self._unlimited else {})

    def unenforced(self, ask: Callable[[str], str]) -> tuple[str, ...]:
        if self._gvisor:  # its kernel shows control groups of its own, and bounds each process by itself
            return ("memory, processes, processors (the runtime drops them)",) if self._drops else ()
        return limits.broken(self._wish, limits.told(ask(limits.SCRIPT)))

    def reached(self, ask: Callable[[str], str]) -> Mapping[str, int]:
        return limits.counts(limits.told(ask(limits.COUNTS)))

    def alive(self) -> bool:
        # The keeper never prints: its stream becomes readable when it ends, a moment before the engine knows.
        if self._closed or sdk.readable(sdk.raw(self._keeper), _ENDING_SECONDS):
            return False
        try:
            return self._state() in ("running", "paused", "unknown")
        except EngineUnavailable:
            return True  # as far as anybody knows: the keeper's stream is open

    def trouble(self) -> EngineError | None:
        try:
            paused = self._state() == "paused"
        except EngineUnavailable as error:
            return error
        advice = f"`{self._engine.name} unpause {self.id[:12]}` lets it go on, `%sandboxctl reset` gives up its files"
        return EngineError(f"somebody has paused the sandbox: {advice}") if paused else None

    def _state(self) -> str:
        """Return what the engine says of it now; empty if it is gone.

        Asked is the list: an inspection waits for whatever else goes on with the container, such as an exec that was
        begun when it was paused.
        """
        try:
            known = sdk.call(self._brisk.containers, all=True, filters={"id": self.id})
        except EngineUnavailable:
            raise
        except EngineError:
            return "unknown"  # it answers, if only to refuse
        return str(known[0]["State"]) if known else ""

    def network(self, online: bool) -> None:
        networks = sdk.call(self._brisk.inspect_container, self.id)["NetworkSettings"]["Networks"]
        if online and not networks:
            sdk.call(self._brisk.connect_container_to_network, self.id, BRIDGE)
        elif not online:
            for network in networks:
                sdk.call(self._brisk.disconnect_container_from_network, self.id, network, force=True)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._renewal is not None:
            watcher().stop(self._renewal)
        try:
            self._state()  # a frozen one must not cost the patience that a removal needs
            if not sdk.remove(self._api, self.id):
                self._wait_gone()
            janitor().released()
        except EngineUnavailable as error:
            raise EngineUnavailable(f"{error}; {self.id[:12]} ends by itself, for we let go of it") from None
        finally:
            close_socket(sdk.raw(self._keeper), sdk.owner(self._keeper))

    def _wait_gone(self) -> None:
        deadline = time.monotonic() + _GONE_SECONDS
        while time.monotonic() < deadline and sdk.call(sdk.exists, self._api, self.id):
            time.sleep(0.01)  # `wait(condition="removed")` answers 404 or hangs in this race, by engine version


class DockerEngine(Engine):
    """A Docker Engine, wherever it is."""

    name = "docker"
    capabilities = frozenset({IMAGES, NETWORK_SWITCH, RUNTIMES, LEASE})
    local_lease: int | None = None  # seconds

    def __init__(self, docker_host: str | None = None) -> None:
        self._docker_host = docker_host
        self._connection: Connection | None = None
        self._connecting = threading.Lock()
        self._unsure: dict[str, int] = {}  # starts that may have left a container; how often to look for it
        self.about = About()
        self.endpoint = ""

    def connect(self) -> None:
        self._connect()

    def _connect(self) -> DockerClient:
        with self._connecting:
            if self._connection is not None and self._connection.lost:
                self._connection.close()
                self._connection = None
            if self._connection is None:
                connection = self._find()
                self.about = About.read(sdk.call(connection.client.info), choice=RUNTIMES in self.capabilities)
                self.endpoint = f"{connection.endpoint.url} ({connection.endpoint.origin})"
                self._connection = connection
            return self._connection.client

    def _find(self) -> Connection:
        """Return a connection to the engine."""
        return first(docker_places(self._docker_host), podman=False)

    @property
    def far(self) -> bool:  # type: ignore[override] # it is known once there is a connection
        return self._connection is not None and self._connection.endpoint.remote

    @property
    def _address(self) -> str:
        """Where it is, for another process of ours; empty if that finds it as we did."""
        endpoint = self._connection.endpoint if self._connection is not None else None
        return "" if endpoint is None or endpoint.context else endpoint.url

    def lease(self, spec: SandboxSpec) -> int | None:
        """Return after how many seconds without a sign of us a sandbox ends by itself; `None`: it has other means."""
        return spec.lease or (REMOTE_LEASE_SECONDS if self.far else self.local_lease)

    def body(self, spec: SandboxSpec, labels: Mapping[str, str], volumes: Iterable[str] = ()) -> dict[str, Any]:
        """Return the arguments of the create request; `volumes` are those of the image."""
        body = container_body(
            spec,
            labels=labels,
            cpus=self.about.cpus,
            lease=self.lease(spec),
            runtime=self.about.asked(spec),
            calls=self.table(),
            volumes=volumes,
        )
        if not self.about.shares_processors:  # the engine would refuse the whole request
            if not spec.allow_degraded:
                raise LimitNotEnforced(self.name, ("processors (this engine says that it cannot)",))
            body["host_config"]["nano_cpus"] = 0
        return body

    def table(self) -> str | None:
        """Return our table of system calls as this engine wants to be told of it; `None` if it cannot be told."""
        return seccomp.text() if seccomp.known(self.about.architecture) else None

    def abilities(self, spec: SandboxSpec) -> frozenset[str]:
        """Return what a sandbox of this wish can do: gVisor looks at its networks once, when it starts."""
        return self.capabilities - {NETWORK_SWITCH} if self.about.gvisor(spec) else self.capabilities

    def wish(self, spec: SandboxSpec) -> limits.Wish:
        """Return the limits that a sandbox of this wish shall have."""
        return limits.Wish.of(spec, processors(spec, self.about.cpus))

    def probe(self) -> Probe:
        try:
            client = self._connect()
            version = client.version()
        except Exception as error:  # noqa: BLE001 # a probe reports, whatever it is
            return Probe(self.name, False, self._docker_host or "", detail=str(error))
        return Probe(
            self.name,
            True,
            self.endpoint,
            version.get("Version", ""),
            runtimes=self.about.names(),
            components=components(version.get("Components") or ()),
        )

    def missing(self, spec: SandboxSpec) -> str:
        image = spec.image or DEFAULT_IMAGE
        try:
            sdk.call(self._connect().api.inspect_image, image)
        except ImageNotFound:
            return image
        return ""

    def stands_on(self, spec: SandboxSpec) -> object:
        return sdk.call(self._connect().api.inspect_image, spec.image or DEFAULT_IMAGE)["Id"]

    def start(self, spec: SandboxSpec, *, name: str = "", progress: Progress = silent) -> DockerMachine:
        api = self._connect().api
        sdk.call(sdk.with_patience(api, _ANSWER_SECONDS).ping)  # what follows has more patience
        self._remove_unsure()
        mark = secrets.token_hex(8)
        volumes = self._volumes(spec, progress) if spec.limits.read_only else ()
        arguments = self.body(spec, labels_of_mine(name) | {_START: mark}, volumes)
        disconnect = not spec.online and arguments["host_config"]["network_mode"] == BRIDGE
        arguments["host_config"] = api.create_host_config(**arguments["host_config"])
        ident, keeper = "", None
        janitor().expect(self.name, self._address)
        try:
            ident = self._create(arguments, arguments["image"], progress)
            keeper = _attach(api, ident)  # or its first words are lost; with this Podman sets up its loopback
            if disconnect:
                sdk.call(api.disconnect_container_from_network, ident, BRIDGE, force=True)
            if spec.user and not spec.limits.read_only and not spec.mounts:
                # Another user than root could not write where the session starts. Not started yet, no volumes, not
                # compressed: none of the holes of the archive call apply.
                sdk.call(api.put_archive, ident, "/", open_folder(spec.cwd))
            sdk.call(api.start, ident)
        except BaseException as error:
            if keeper is not None:
                close_socket(sdk.raw(keeper), sdk.owner(keeper))
            self._give_up(mark, ident, error)
            raise
        return DockerMachine(self, api, ident, keeper, spec)

    def _give_up(self, mark: str, ident: str, error: BaseException) -> None:
        """Remove what a failed start has made; if that cannot be known or done now, then later."""
        if isinstance(error, EngineError) and not isinstance(error, EngineUnavailable):
            with contextlib.suppress(EngineUnavailable):
                if ident:
                    self.remove(ident)
                janitor().released()
                return
        self._unsure[mark] = _LOOKS
        if not isinstance(error, EngineUnavailable):  # interrupted: the engine answers
            with contextlib.suppress(EngineError):
                self._remove_unsure()

    def _remove_unsure(self) -> None:
        for mark in list(self._unsure):
            for entry in self._listed(f"{_START}={mark}"):
                self.remove(entry["Id"])
                self._unsure.pop(mark, None)
            if mark in self._unsure:
                self._unsure[mark] -= 1
                if not self._unsure[mark]:
                    del self._unsure[mark]

    def _volumes(self, spec: SandboxSpec, progress: Progress) -> Iterable[str]:
        api, image = self._connect().api, spec.image or DEFAULT_IMAGE
        try:
            facts = sdk.call(api.inspect_image, image)
        except ImageNotFound:
            pull.image(api, image, progress)
            facts = sdk.call(api.inspect_image, image)
        return (facts.get("Config") or {}).get("Volumes") or ()

    def _create(self, arguments: dict[str, Any], image: str, progress: Progress) -> str:
        api = self._connect().api
        try:
            return str(sdk.call(api.create_container, **arguments)["Id"])
        except ImageNotFound:
            pull.image(api, image, progress)
        return str(sdk.call(api.create_container, **arguments)["Id"])

    def _listed(self, label: str) -> list[dict[str, Any]]:
        return list(sdk.call(self._connect().api.containers, all=True, filters={"label": label}))

    def found(self) -> list[Found]:
        return [Found(entry["Id"], entry.get("Labels") or {}) for entry in self._listed(LABEL)]

    def sweep(self, *, of: Owner | None = None) -> Sweep:
        self._remove_unsure()
        return super().sweep(of=of)

    def remove(self, ident: str) -> None:
        sdk.remove(self._connect().api, ident)


def _attach(api: Any, ident: str) -> Any:
    """Return the stream to the keeper."""
    patient = sdk.with_patience(api, api.timeout)
    patient.post = partial(patient.post, timeout=api.timeout)  # the SDK would wait for ever here
    keeper = sdk.call(patient.attach_socket, ident, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    close_in_child(sdk.keep_alive(sdk.raw(keeper)))
    return keeper
