"""`SandboxSpec`: the wish for a sandbox, validated and frozen; and the three profiles."""

from __future__ import annotations

import numbers
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

from sandbox_magic.destinations import Destination, destinations
from sandbox_magic.errors import InvalidOptions
from sandbox_magic.mounts import danger

DEFAULT_IMAGE = "debian:stable-slim"

# What keeps common tools from paging, prompting and drawing; the user's own values win.
TOOL_ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive",
    "GIT_PAGER": "cat",
    "GIT_TERMINAL_PROMPT": "0",
    "LANG": "C.UTF-8",
    "PAGER": "cat",
    "PIP_NO_INPUT": "1",
    "TERM": "dumb",
}
VARIABLE_MAX = 128 << 10  # bytes of a variable with its name, or of an argument; all together may have more
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def parse_size(text: str | int) -> int:
    """Return a size in bytes: ``"512m"`` is 512 * 1024 * 1024.

    Raises:
        InvalidOptions: Not a number with one of the units b, k, m, g, t.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([bkmgt]?)(?:i?b)?", str(text).strip().lower())
    if not match:
        raise InvalidOptions(f"{text!r} is not a size; write bytes or a number with k, m or g, such as 512m")
    return int(float(match[1]) * _UNITS[match[2]])


def size_text(size: int) -> str:
    """Return a size as people write it: 268435456 is ``"256m"``."""
    for unit in "tgmk":
        if size >= _UNITS[unit] and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or folder of the host, shown inside; read-only unless asked otherwise.

    Attributes:
        source: Its absolute path on the host, links resolved.
        target: Where it appears, an absolute path.
        writable: Whether the sandbox may change it.
    """

    source: str
    target: str
    writable: bool = False

    def __post_init__(self) -> None:
        try:
            path = str(Path(self.source).expanduser().resolve(strict=True))
        except (OSError, RuntimeError) as error:  # a loop of links, or a user without a home, is a RuntimeError
            reason = getattr(error, "strerror", None) or error
            raise InvalidOptions(f"mount: {self.source} cannot be found on this machine: {reason}") from None
        object.__setattr__(self, "source", path)
        if not PurePosixPath(self.target).is_absolute() or ".." in PurePosixPath(self.target).parts:
            raise InvalidOptions(f"mount: the target {self.target!r} must be an absolute path inside the sandbox")
        self.check()

    def check(self, sockets: tuple[str, ...] = ()) -> None:
        """Refuse a source that would open the wall; again before each start: others may have changed what it is.

        Args:
            sockets: Sockets of engines, beside those that are known.

        Raises:
            InvalidOptions: With the reason.
        """
        path = Path(self.source)
        if path.resolve() != path or not path.exists():
            raise InvalidOptions(f"mount: {path} is not what it was when it was named: it is gone, or a link by now")
        if reason := danger(path, sockets):
            raise InvalidOptions(
                f"mount: {path} is refused: {reason}. Copy what you need with put, or name a subfolder."
            )

    @classmethod
    def parse(cls, text: str) -> Mount:
        """Return the mount that ``SRC:DST[:ro|:rw]`` describes."""
        parts = text.split(":") if isinstance(text, str) else []
        mode = parts.pop() if len(parts) == 3 else "ro"
        if len(parts) != 2 or mode not in ("ro", "rw"):
            raise InvalidOptions(f"mount {text!r}: write SRC:DST, or SRC:DST:rw to let the sandbox change it")
        return cls(parts[0], parts[1], mode == "rw")


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder in memory.

    Attributes:
        path: Where it is inside.
        size: How much it holds, in bytes.
        files: How many files and folders, where the engine can bound them.
        programs: Whether programs in it may be run.
    """

    path: str
    size: int
    files: int
    programs: bool = True


@dataclass(frozen=True, slots=True)
class Profile:
    """What a sandbox may do and use, before single options change it.

    Attributes:
        user: The session's user; `None` is the image's own.
        capabilities: What root inside keeps; `None` is the engine's default set less `dropped`.
        dropped: What is taken from the engine's default set where `capabilities` is `None`.
        memory: Memory and swap together, in bytes.
        pids: How many processes and threads.
        shm: How much /dev/shm holds, in bytes.
        file_size: The largest file that a process may write, in bytes, on an engine whose root is on a disk.
        read_only: Whether the root file system is read-only, with bounded /tmp, /run and /work in memory.
        online: Whether it starts with a network.
        runtime: What is taken where the engine has it and it keeps the limits.
    """

    user: str | None
    capabilities: tuple[str, ...] | None
    memory: int
    pids: int
    cpus: float
    shm: int
    file_size: int | None
    dropped: tuple[str, ...] = ()
    read_only: bool = False
    online: bool = False
    runtime: str | None = None


PROFILES = {
    "sealed": Profile(
        user="10001:10001",
        capabilities=(),
        memory=2 << 30,
        pids=256,
        cpus=1.0,
        shm=64 << 20,
        file_size=2 << 30,
        read_only=True,
        runtime="runsc",
    ),
    # apt, dpkg and pip work with exactly these five (measured: see docs/security.md).
    "standard": Profile(
        user="0:0",
        capabilities=("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"),
        memory=4 << 30,
        pids=1024,
        cpus=2.0,
        shm=256 << 20,
        file_size=8 << 30,
    ),
    "open": Profile(
        user=None,
        capabilities=None,
        memory=8 << 30,
        pids=4096,
        cpus=2.0,
        shm=256 << 20,
        file_size=None,
        dropped=("NET_RAW", "MKNOD"),
        online=True,
    ),
}
FILES_SOFT, FILES_HARD = 1024, 4096  # open files of a process, in every profile


# What the fields hold, where another kind would be found out late or never.
_KINDS: Mapping[str, tuple[type, str]] = {
    **dict.fromkeys(("image", "engine", "profile", "user", "cwd", "shell", "docker_host", "runtime"), (str, "text")),
    "memory": (int, "bytes, or text such as '512m'"),
    "cpus": (numbers.Real, "a number"),
    "pids": (int, "a whole number"),
    "env": (tuple, "names with their values, such as {'NAME': 'text'}"),
    "mounts": (tuple, "a list of 'SRC:DST[:rw]'"),
}


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """The wish for a sandbox.

    Attributes:
        image: The image; `None` is `DEFAULT_IMAGE` where the engine has images.
        engine: ``"auto"`` takes the first that answers.
        profile: ``"sealed"``, ``"standard"`` or ``"open"``.
        network: Online from the start and until told otherwise; or the only names that it may reach, see `Destination`.
        memory: Limit of memory and swap together, in bytes; `None` is the profile's.
        cpus: How many processors' time; `None` is the profile's, or what the engine has if that is less.
        pids: How many processes and threads; `None` is the profile's.
        mounts: Host files and folders shown inside.
        env: Environment of the session.
        user: ``NAME``, ``UID`` or ``UID:GID`` of the session; `None` is the profile's.
        cwd: Where the session starts.
        shell: The session's shell; `None` is bash where the image has it, else sh.
        restore: Whether a new shell gets variables, functions, aliases and options back, not only exports.
        docker_host: The engine's endpoint; `None` leaves it to environment and context.
        runtime: The engine's runtime, such as ``"runsc"`` (gVisor); `None` is the profile's, or the engine's own.
        lease: The sandbox ends by itself when it has heard nothing of this process for so many seconds; `None` is the
            engine's own: none where it notices our end at once.
        spare: Whether another one of the kind waits, so that a reset and the next one start at once; `None` leaves it
            to the engine. Never one with mounts.
        allow_degraded: Start also where the engine does not enforce a limit; `status` then says which.
    """

    image: str | None = None
    engine: str = "auto"
    profile: str = "standard"
    network: bool | tuple[Destination, ...] = False
    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None
    mounts: tuple[Mount, ...] = ()
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # may hold secrets
    user: str | None = None
    cwd: str = "/work"
    shell: str | None = None
    restore: bool = True
    docker_host: str | None = None
    runtime: str | None = None
    lease: int | None = None
    spare: bool | None = None
    allow_degraded: bool = False

    def __post_init__(self) -> None:
        self._check_kinds()
        if self.profile not in PROFILES:
            raise InvalidOptions(f"profile {self.profile!r} is unknown; choose one of {', '.join(PROFILES)}")
        if self.image is not None and (
            not self.image or self.image.startswith("-") or any(char.isspace() for char in self.image)
        ):
            raise InvalidOptions(f"{self.image!r} is not the name of an image")
        if self.memory is not None and self.memory < 6 << 20:
            raise InvalidOptions("memory: at least 6m, or no shell can start")
        if self.cpus is not None and not 0.01 <= self.cpus <= 1024:
            raise InvalidOptions("cpus: a number from 0.01 up, such as 1.5")
        if self.pids is not None and self.pids < 8:
            raise InvalidOptions("pids: at least 8: the session itself needs some")
        if self.lease is not None and not (isinstance(self.lease, int) and self.lease >= 1):
            raise InvalidOptions("lease: whole seconds, at least 1")
        if not PurePosixPath(self.cwd).is_absolute():
            raise InvalidOptions(f"cwd: {self.cwd!r} must be an absolute path inside the sandbox")
        check_env(dict(self.env))

    def _check_kinds(self) -> None:
        """Refuse values of another kind than the fields have."""
        for each in fields(self):
            value = getattr(self, each.name)
            kind, what = _KINDS.get(each.name, (object, ""))
            if not isinstance(value, kind) and (value is not None or each.default is not None):
                raise InvalidOptions(f"{each.name}: {what}, not {value!r}")

    def check_mounts(self) -> None:
        """Refuse mounts that would open the wall, as things are now."""
        host = self.docker_host or ""
        for mount in self.mounts:
            mount.check((host.removeprefix("unix://"),) if host.startswith("unix://") else ())

    @property
    def limits(self) -> Profile:
        """The profile that was chosen."""
        return PROFILES[self.profile]

    @property
    def online(self) -> bool:
        """Whether it starts with a network, by wish or by profile; one with a list of names does not."""
        return self.network is True or (self.network is False and self.limits.online)

    @property
    def memory_bytes(self) -> int:
        """The limit of memory, by wish or by profile."""
        return self.memory or self.limits.memory

    @property
    def pids_most(self) -> int:
        """The limit of processes and threads, by wish or by profile."""
        return self.pids or self.limits.pids

    @property
    def shared(self) -> tuple[Path, ...]:
        """The folders of the host that the sandbox may change."""
        return tuple(Path(mount.source) for mount in self.mounts if mount.writable)

    @property
    def shm(self) -> Folder:
        """Where memory is shared by name."""
        return Folder("/dev/shm", min(self.limits.shm, self.memory_bytes // 4), 0)  # noqa: S108 # inside

    @property
    def folders(self) -> tuple[Folder, ...]:
        """What can be written where the root is read-only.

        Together smaller than the memory, in which they count: a full folder is an error, not the end of processes.
        """
        memory = self.memory_bytes
        return (
            Folder("/tmp", min(256 << 20, memory // 8), 1 << 16),  # noqa: S108 # the sandbox's own
            Folder("/run", min(16 << 20, memory // 16), 1 << 12, programs=False),
            Folder("/work", min(1 << 30, memory // 2), 1 << 18),
        )


def check_env(env: Mapping[str, str]) -> None:
    """Raise `InvalidOptions` unless these are variables that a program can be started with."""
    if not isinstance(env, Mapping):
        raise InvalidOptions(f"env: names with their values, such as {{'NAME': 'text'}}, not {env!r}")
    for name, value in env.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidOptions(f"env: {name!r} cannot be the name of a shell variable")
        if not isinstance(value, str):
            raise InvalidOptions(
                f"env: the value of {name} must be text, not {type(value).__name__}: str(...) makes it"
            )
        if "\0" in value:
            raise InvalidOptions(f"env: the value of {name} holds a NUL character")
        if (size := len(f"{name}={value}".encode(errors="surrogateescape"))) >= VARIABLE_MAX:
            raise InvalidOptions(
                f"env: {name} has {size} bytes, and with a variable of {VARIABLE_MAX} or more Linux starts no program "
                "at all: give it as stdin (--stdin NAME, stdin=), or as a file (put)"
            )


def changed(spec: SandboxSpec, wish: dict[str, Any]) -> SandboxSpec:
    """Return `spec` with the fields in `wish` changed; texts and mappings are accepted for the awkward ones."""
    known = {field.name for field in fields(SandboxSpec)}
    if unknown := sorted(set(wish) - known):
        raise InvalidOptions(f"unknown: {', '.join(unknown)}; a sandbox takes {', '.join(sorted(known))}")
    if isinstance(wish.get("memory"), str):
        wish["memory"] = parse_size(wish["memory"])
    if isinstance(wish.get("env"), Mapping):
        wish["env"] = tuple(wish["env"].items())
    if isinstance(wish.get("mounts"), Iterable):
        wish["mounts"] = tuple(mount if isinstance(mount, Mount) else Mount.parse(mount) for mount in wish["mounts"])
    if not isinstance(wish.get("network", False), bool):
        wish["network"] = destinations(wish["network"])
    return replace(spec, **wish)
