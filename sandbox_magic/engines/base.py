"""The contract of an engine: five verbs and facts.

A new engine implements this and runs ``pytest --pyargs sandbox_magic.testing --engine NAME``.
"""

from __future__ import annotations

import abc
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from sandbox_magic.errors import EngineError, EngineUnavailable, InvalidOptions
from sandbox_magic.spec import Folder, SandboxSpec
from sandbox_magic.transport import Transport

# What an engine's sandboxes can do beside the contract, asked by name.
IMAGES = "images"  # start from an image
NETWORK_SWITCH = "network_switch"  # go online and offline while running
RUNTIMES = "runtimes"  # choose what runs its processes
LEASE = "lease"  # end by itself when nothing was heard of its owner for a time

LABEL = "sandbox-magic"
_PID = re.compile(r"[0-9]{1,9}")

Progress = Callable[[str], None]


def silent(_text: str) -> None:
    """Show nothing: the progress callback of those who want none."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What an engine says of itself.

    Attributes:
        name: The engine.
        available: Whether it can work here.
        endpoint: Where it was found, or was looked for.
        version: Its version, where it said one.
        detail: Why not, or what is worth knowing; may have several lines.
        runtimes: What can run its processes, where there is a choice; its own choice first.
        components: The versions of its parts, by the names in `holes.py`.
        holes: Names of known holes that a trial has shown, from `holes.py`.
    """

    name: str
    available: bool
    endpoint: str = ""
    version: str = ""
    detail: str = ""
    runtimes: tuple[str, ...] = ()
    components: Mapping[str, str] = field(default_factory=dict)
    holes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """A sandbox of ours that an engine knows of.

    Attributes:
        id: The engine's id.
        labels: What we wrote on it.
    """

    id: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a sweep did.

    Attributes:
        removed: The ids of what it removed.
        left: The ids of what it left, each with the reason.
    """

    removed: tuple[str, ...] = ()
    left: tuple[tuple[str, str], ...] = ()


class Machine(abc.ABC):
    """A started sandbox.

    Attributes:
        id: The engine's id.
        capabilities: What this sandbox can do beside the contract.
        home: Where its sessions are at home; empty where the engine looks it up.
        in_memory: The folders that can be written, where that is all that can; empty if there is a disk.
        aside: The user for a process of ours that no cell can signal; `None` where there is only the session's.
    """

    id: str
    capabilities: frozenset[str] = frozenset()
    home: str = "/root"
    in_memory: tuple[Folder, ...] = ()
    aside: str | None = None

    @abc.abstractmethod
    def open(self, argv: Sequence[str], *, user: str | None = None, env: Mapping[str, str] | None = None) -> Transport:
        """Start a process inside with its own stdin, stdout and stderr. It must not speak before it was spoken to."""

    @abc.abstractmethod
    def describe(self) -> dict[str, object]:
        """Return what the engine knows of it."""

    @abc.abstractmethod
    def alive(self) -> bool:
        """Ask the engine whether it still runs; True as well if it does not answer and no stream says the contrary."""

    def trouble(self) -> EngineError | None:
        """Say why nothing may be heard of it although it has not ended, such as a frozen engine; in bounded time."""
        return None

    @abc.abstractmethod
    def close(self) -> None:
        """End it with everything in it; again is allowed."""

    def unenforced(self, _ask: Callable[[str], str]) -> tuple[str, ...]:
        """Return the limits that do not hold, each with what was found; by default it is trusted.

        Args:
            _ask: Runs text in the session's own shell, before anything of the user's, and returns what it prints.
        """
        return ()

    def reached(self, _ask: Callable[[str], str]) -> Mapping[str, int]:
        """Return how often a limit was reached so far, by ``memory`` and ``processes``, where that can be told.

        Args:
            _ask: Runs text in the control shell and returns what it prints.
        """
        return {}

    def network(self, online: bool) -> None:
        """Connect it to the network, or take it off (capability ``network_switch``)."""
        raise NotImplementedError


class Engine(abc.ABC):
    """What runs sandboxes.

    Attributes:
        name: What users call it.
        capabilities: What its sandboxes can do beside the contract.
        difference: What a user of Docker must know of its sandboxes; empty if nothing.
        far: Whether it may be on another machine, and other machines may use it too.
        spare: Whether a sandbox of it that waits costs so little that one does without being asked for.
    """

    name: str
    capabilities: frozenset[str] = frozenset()
    difference: str = ""
    far: bool = False
    spare: bool = False

    @abc.abstractmethod
    def connect(self) -> None:
        """Make sure that it can work here; cheap when it has said so before.

        Raises:
            EngineUnavailable: It cannot; the sentence says why and what to do.
        """

    def check(self, spec: SandboxSpec) -> None:
        """Refuse a wish that its sandboxes cannot fulfil: nothing is ever silently weaker than asked.

        Raises:
            InvalidOptions: With the field, and who can.
        """
        spec.check_mounts()  # also when a sandbox is started anew, long after it was described
        for capability, asked, what in (
            (IMAGES, spec.image is not None, f"image {spec.image!r}: there are no images"),
            (NETWORK_SWITCH, spec.online, "network: its sandboxes have none"),
            (RUNTIMES, spec.runtime is not None, f"runtime {spec.runtime!r}: there is no choice"),
            (LEASE, spec.lease is not None, "lease: its sandboxes have none"),
        ):
            if asked and capability not in self.capabilities:
                raise InvalidOptions(f"engine {self.name} cannot do this. {what}; engine='docker' can.")

    def missing(self, _spec: SandboxSpec) -> str:
        """Return the image that a start would have to fetch; empty if it has all it needs."""
        return ""

    def stands_on(self, _spec: SandboxSpec) -> object:
        """Return what a start takes from outside the wish, to be compared: what was started before it changed is old.

        Raises:
            SandboxError: It is not there, or the engine does not say.
        """
        return None

    @abc.abstractmethod
    def probe(self) -> Probe:
        """Say whether it can work here; never raises."""

    @abc.abstractmethod
    def start(self, spec: SandboxSpec, *, name: str = "", progress: Progress = silent) -> Machine:
        """Start a sandbox that ends with this process, however this process ends; the wish has passed `check`.

        Raises:
            EngineUnavailable: Nothing answers.
            ImageNotFound: The image cannot be had.
            EngineError: The engine refused.
        """

    @abc.abstractmethod
    def found(self) -> list[Found]:
        """Return the sandboxes with our label."""

    @abc.abstractmethod
    def remove(self, ident: str) -> None:
        """Remove one of them, whatever its state."""

    def sweep(self, *, of: Owner | None = None) -> Sweep:
        """Remove the sandboxes whose owner is provably dead, or only those `of` this one; say what became of each."""
        removed, left = [], []
        for found in self.found():
            owner = Owner.from_labels(found.labels)
            if of is not None and owner != of:
                continue
            why = owner.doubt(far=self.far)
            if not why:
                try:
                    self.remove(found.id)
                except EngineUnavailable:
                    raise
                except EngineError as error:
                    why = f"it cannot be removed: {error}"
            if why:
                left.append((found.id, why))
            else:
                removed.append(found.id)
        return Sweep(tuple(removed), tuple(left))


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that a sandbox belongs to, so that another process can prove it dead.

    Attributes:
        host: Machine id, boot id and pid namespace: only inside the same three can a process id be judged.
        pid: Its process id.
        started: Its start time in clock ticks since boot; empty where the system does not tell.
    """

    host: str
    pid: int
    started: str

    @classmethod
    def me(cls) -> Owner:
        """Return this process."""
        return cls(_host(), os.getpid(), started_at(os.getpid()) or "")

    @classmethod
    def from_labels(cls, labels: Mapping[str, str]) -> Owner:
        """Return the owner that is written on a sandbox; one that is never dead if the labels are not ours."""
        pid = labels.get("sandbox-magic.owner.pid", "")
        host = labels.get("sandbox-magic.owner.host", "")
        number = int(pid) if _PID.fullmatch(pid) else 0  # anybody may label an image, and so what is made of it
        return cls(host, number, labels.get("sandbox-magic.owner.started", ""))

    def labels(self) -> dict[str, str]:
        """Return what is written on a sandbox."""
        return {
            "sandbox-magic.owner.host": self.host,
            "sandbox-magic.owner.pid": str(self.pid),
            "sandbox-magic.owner.started": self.started,
        }

    def doubt(self, *, far: bool = False) -> str:
        """Say why this process may still run; empty if it provably does not.

        Args:
            far: Whether the sandbox is on an engine that other machines use too.
        """
        mine, theirs = _host().split("/"), self.host.split("/")
        if not self.pid or len(theirs) != 3:
            return "nobody is named as its owner"
        if mine[0] != theirs[0]:
            return "its owner is on another machine"
        if mine[1] != theirs[1]:  # this very machine has booted since; or it is a copy of this one, with the same id
            return "its owner is on another machine, or on this one before it was started anew" if far else ""
        if mine[2] != theirs[2]:
            return f"its owner, process {self.pid}, is in another container, where it cannot be looked for"
        return "" if ended(self.pid, self.started) else f"its owner, process {self.pid}, lives"


def labels_of_mine(name: str) -> dict[str, str]:
    """Return what is written on a sandbox of this process."""
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return {LABEL: "1", f"{LABEL}.name": name, f"{LABEL}.created": created} | Owner.me().labels()


@cache
def _host() -> str:
    """Return machine id / boot id / pid namespace of this process."""

    def read(path: str) -> str:
        try:
            return Path(path).read_text(encoding="ascii").strip()
        except OSError:
            return ""

    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = "-"
    machine = read("/etc/machine-id") or os.uname().nodename
    return "/".join((machine, read("/proc/sys/kernel/random/boot_id") or "-", namespace))


def ended(pid: int, started: str) -> bool:
    """Whether the process of this number that was started then provably runs no more; False when in doubt."""
    now = started_at(pid)
    return now is None or bool(now and started and now != started)


def started_at(pid: int) -> str | None:
    """Return when a process started, in clock ticks since boot; `None` if it does not run, empty if nobody tells."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        pass  # there is no such process, or no /proc, or one that hides the processes of others
    else:
        state, *fields = text.rpartition(")")[2].split()
        return None if state in "ZX" else fields[18]
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        return ""
    return ""
