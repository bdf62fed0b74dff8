"""Every way in which a kernel, its engine, or the link between them can end, and what is left on this machine then."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "notebook"))

from daemon import IMAGE, Daemon, until
from gate import Gate
from kernels import Kernel

from sandbox_magic.engines import traces
from sandbox_magic.engines.base import Engine, Owner
from sandbox_magic.engines.bubblewrap import BubblewrapEngine
from sandbox_magic.engines.docker import DockerEngine
from sandbox_magic.engines.podman import PodmanEngine
from sandbox_magic.testing.host import left

PATIENCE = 40.0  # what is not gone by then on a busy machine counts as left behind
LEASE = 3
PLACES = {
    "docker": ("DOCKER_HOST", "/var/run/docker.sock"),
    "podman": ("CONTAINER_HOST", "/run/podman/podman.sock"),
    "bubblewrap": ("", ""),
}


@dataclass
class World:
    """A kernel, the engine that it uses, and what is asked about them afterwards.

    Attributes:
        kernel: The kernel.
        engine: The engine, asked by us.
        line: What a cell must begin with to run there.
        gate: What is between the kernel and the engine; `None` where that is no connection.
        idents: The sandboxes that were seen.
    """

    kernel: Kernel
    engine: Engine
    line: str
    gate: Gate | None
    scratch: Path
    idents: set[str]
    pid: int = 0

    def start(self, options: str = "") -> str:
        """Start the default sandbox of the kernel; return its id."""
        self.kernel.ok(f"{self.line} {options}\nkept=yes", timeout=4 * PATIENCE)  # a new Podman asks dpkg
        self.pid = self.kernel.pid
        ident = self.kernel.value("__import__('sandbox_magic.manager').manager.current_manager().find()._machine.id")
        self.idents.add(ident.strip("'"))
        return ident.strip("'")

    def busy(self) -> None:
        """Have the kernel in the middle of a cell, with a process that ignores what can be ignored."""
        self.start()
        cell = self.kernel.send(f"{self.line}\ntrap '' HUP INT TERM PIPE; echo begun; sleep 1000 & yes")
        self.kernel.wait_for(cell, "begun")

    def known(self) -> list[str]:
        """Return the sandboxes that name this kernel as their owner, or its process as their maker."""
        host = Owner.me().host
        found = [
            one.id for one in self.engine.found() if Owner.from_labels(one.labels) == self._owner(host, one.labels)
        ]
        if isinstance(self.engine, BubblewrapEngine):
            found += [trace.ident for trace in traces.all_traces() if trace._facts().get("maker") == self.pid]
        self.idents |= set(found)
        return found

    def _owner(self, host: str, labels: object) -> Owner:
        owner = Owner.from_labels(labels)  # type: ignore[arg-type] # of a container
        return Owner(host, self.pid, owner.started)

    def leftovers(self) -> list[str]:
        """Return what is there of this kernel now."""
        named = [f"sandbox {ident[:12]}" for ident in self.known()]
        files = [str(path) for path in self.scratch.iterdir()]
        shared = [str(path) for path in Path("/dev/shm").iterdir() if any(i[:12] in path.name for i in self.idents)]
        making = [str(path) for path in traces.home().glob(f".{self.pid}-*")]
        return [*named, *left(self.idents), *files, *shared, *making]

    def nothing(self) -> list[str]:
        """Wait until nothing is left, and return what is left all the same."""
        end = time.monotonic() + PATIENCE
        while (found := self.leftovers()) and time.monotonic() < end:
            time.sleep(0.05)
        return found


@contextmanager
def world(place: str, engine_socket: str = "") -> Iterator[World]:
    """Give a kernel at a place; it is killed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="sbx-"))
    scratch = folder / "tmp"
    scratch.mkdir()
    variable, socket = PLACES[place]
    engine: Engine
    gate = None
    environment = {"TMPDIR": str(scratch)}
    if place == "bubblewrap":
        engine = BubblewrapEngine()
    else:
        gate = Gate(engine_socket or socket)
        environment[variable] = gate.url
        engine = (DockerEngine if place == "docker" else PodmanEngine)(f"unix://{engine_socket or socket}")
    try:
        with Kernel(folder, **environment) as kernel:
            kernel.ok("%load_ext sandbox_magic")
            image = "" if place == "bubblewrap" else f"--image {IMAGE}"
            made = World(kernel, engine, f"%%sandbox --engine {place} {image}", gate, scratch, set(), kernel.pid)
            yield made
    finally:
        if gate is not None:
            gate.close()
        if isinstance(engine, DockerEngine) and engine._connection is not None:
            engine._connection.close()
        shutil.rmtree(folder, ignore_errors=True)


Scenario = Callable[[str], list[str]]


# ---- the end of a kernel


def _ended(place: str, end: Callable[[World], object], *, busy: bool = False) -> list[str]:
    with world(place) as here:
        if busy:
            here.busy()
        else:
            here.start()
        end(here)
        return here.nothing()


def normal_end(place: str) -> list[str]:
    return _ended(place, lambda here: here.kernel.shutdown())


def restart(place: str) -> list[str]:
    return _ended(place, lambda here: here.kernel.restart())


def sigterm(place: str) -> list[str]:
    return _ended(place, lambda here: here.kernel.signal(signal.SIGTERM))


def sigkill_idle(place: str) -> list[str]:
    return _ended(place, lambda here: here.kernel.signal(signal.SIGKILL))


def sigkill_in_a_cell(place: str) -> list[str]:
    return _ended(place, lambda here: here.kernel.signal(signal.SIGKILL), busy=True)


def sigkill_between_create_and_start(place: str) -> list[str]:
    """Nothing runs then; what was made is removed by the sweep that the next kernel does."""
    with world(place) as here:
        if here.gate is None:
            here.kernel.send(f"{here.line}\ntrue")
            until("no sandbox is being made", lambda: here.known() or list(traces.home().glob(f".{here.pid}-*")))
            time.sleep(random.uniform(0, 0.02))  # any moment of a start
            here.kernel.signal(signal.SIGKILL)
        else:
            here.gate.hold("/start HTTP")
            here.kernel.send(f"{here.line}\ntrue")
            assert here.gate.held.wait(PATIENCE)
            assert here.known(), "it is created"
            here.kernel.signal(signal.SIGKILL)
            here.gate.shut()
        here.engine.sweep()
        return here.nothing()


def sigkill_with_the_start_on_its_way(place: str) -> list[str]:
    with world(place) as here:
        assert here.gate is not None
        here.gate.hold("/start HTTP")
        here.kernel.send(f"{here.line}\ntrue")
        assert here.gate.held.wait(PATIENCE)
        assert here.known(), "it is created"
        here.kernel.signal(signal.SIGKILL)
        here.gate.release()
        return here.nothing()


def _ended_with_a_spare(place: str, end: Callable[[Kernel], object]) -> list[str]:
    """One that was made while the kernel rested; the one before it was taken by a reset."""

    def waiting(old: str) -> set[str]:
        return set(here.known()) - {old}

    with world(place) as here:
        here.kernel.ok("%config SandboxMagics.spare = True")
        old = here.start()
        until("there is no spare", lambda: waiting(old))
        spare = waiting(old)
        here.kernel.ok("%sandboxctl reset")
        new = here.start()
        assert spare == {new}
        until("there is no other spare", lambda: waiting(new))
        end(here.kernel)
        return here.nothing()


def normal_end_with_a_spare(place: str) -> list[str]:
    return _ended_with_a_spare(place, Kernel.shutdown)


def sigkill_with_a_spare(place: str) -> list[str]:
    return _ended_with_a_spare(place, lambda kernel: kernel.signal(signal.SIGKILL))


# ---- fork

FORK = """
import os, time
child = os.fork()
if child == 0:
    {child}
    os._exit(0)
"""


def fork_whose_child_ends(place: str) -> list[str]:
    with world(place) as here:
        ident = here.start()
        here.kernel.ok(FORK.format(child="pass") + "os.waitpid(child, 0)")
        assert here.kernel.ok(f"{here.line}\necho $kept").stdout == "yes\n", "the sandbox is the parent's"
        assert here.known().count(ident)
        here.kernel.signal(signal.SIGKILL)
        return here.nothing()


def fork_whose_parent_is_killed(place: str) -> list[str]:
    with world(place) as here:
        here.start()
        here.kernel.ok(FORK.format(child="time.sleep(1000)"))
        child = int(here.kernel.value("child"))
        try:
            here.kernel.signal(signal.SIGKILL)
            found = here.nothing()
            os.kill(child, 0)  # it lives
            return found
        finally:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


# ---- the link


def cut_link(place: str) -> list[str]:
    """Nobody hears an end: the lease of the sandbox does it."""
    with world(place) as here:
        assert here.gate is not None
        here.kernel.ok("from sandbox_magic import Sandbox")
        here.kernel.ok(f"box = Sandbox({IMAGE!r}, engine={place!r}, lease={LEASE}).start()")
        here.idents.add(here.kernel.value("box._machine.id").strip("'"))
        assert here.known()
        here.gate.cut.set()
        return here.nothing()


# ---- the engine


def _engine_ends(how: str, *arguments: str, starting: bool = False) -> list[str]:
    with Daemon(*arguments) as daemon, world("docker", daemon.url.removeprefix("unix://")) as here:
        networks = daemon.networks()
        if starting:
            assert here.gate is not None
            here.gate.hold("/start HTTP")
            here.kernel.send(f"{here.line}\ntrue")
            assert here.gate.held.wait(PATIENCE)
        else:
            here.busy()
        getattr(daemon, how)()
        if starting and here.gate is not None:
            here.gate.release()
        daemon.start()
        if starting:  # its owner lives, and lets go of it at the next start
            with suppress(AssertionError):
                here.kernel.run(f"{here.line}\ntrue")
            here.kernel.ok(f"{here.line}\ntrue")
            here.kernel.shutdown()
        found = here.nothing()
        return [*found, *daemon.containers(), *(daemon.networks() - networks)]


def engine_restarted(_place: str) -> list[str]:
    return _engine_ends("stop")


def engine_restarted_with_live_restore(_place: str) -> list[str]:
    return _engine_ends("stop", "--live-restore")


def engine_killed_in_a_cell(_place: str) -> list[str]:
    return _engine_ends("kill")


def engine_killed_in_a_cell_with_live_restore(_place: str) -> list[str]:
    return _engine_ends("kill", "--live-restore")


def engine_killed_in_a_start(_place: str) -> list[str]:
    return _engine_ends("kill", starting=True)


def _podmans_service_ends(place: str, number: signal.Signals) -> list[str]:
    folder = Path(tempfile.mkdtemp(prefix="sbx-"))
    socket = folder / "podman.sock"
    command = ["podman", "system", "service", "--time=0", f"unix://{socket}"]
    service = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until("podman does not answer", socket.exists)
        with world(place, str(socket)) as here:
            here.engine = PodmanEngine(f"unix://{PLACES['podman'][1]}")  # another one sees the same containers
            here.busy()
            service.send_signal(number)
            service.wait(PATIENCE)
            return here.nothing()
    finally:
        service.kill()
        service.wait()
        shutil.rmtree(folder)


def podmans_service_stopped(place: str) -> list[str]:
    return _podmans_service_ends(place, signal.SIGTERM)


def podmans_service_killed(place: str) -> list[str]:
    return _podmans_service_ends(place, signal.SIGKILL)


EVERYWHERE: tuple[Scenario, ...] = (
    normal_end,
    restart,
    sigterm,
    sigkill_idle,
    sigkill_in_a_cell,
    sigkill_between_create_and_start,
    fork_whose_child_ends,
    fork_whose_parent_is_killed,
)
WITH_A_LINK: tuple[Scenario, ...] = (sigkill_with_the_start_on_its_way, cut_link)
OF_DOCKER: tuple[Scenario, ...] = (
    engine_restarted,
    engine_restarted_with_live_restore,
    engine_killed_in_a_cell,
    engine_killed_in_a_cell_with_live_restore,
    engine_killed_in_a_start,
)
WITH_A_SPARE: tuple[Scenario, ...] = (normal_end_with_a_spare, sigkill_with_a_spare)
ALL: list[tuple[Scenario, str]] = [
    *((scenario, place) for scenario in EVERYWHERE for place in PLACES),
    *((scenario, place) for scenario in WITH_A_LINK for place in ("docker", "podman")),
    *((scenario, "docker") for scenario in OF_DOCKER),
    (podmans_service_stopped, "podman"),
    *((scenario, "bubblewrap") for scenario in WITH_A_SPARE),
    (podmans_service_killed, "podman"),
]
