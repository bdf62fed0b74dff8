"""What a bubblewrap sandbox leaves on the host while it lives: a folder with its pipes and a record of who owns it.

So another process can find the sandboxes of this machine, and remove those whose owner is dead. They end by themselves
(PDEATHSIG); their folder and their control groups do not.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import stat
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandbox_magic.engines import cgroups, scopes
from sandbox_magic.engines.base import ended, started_at
from sandbox_magic.errors import EngineError

_END_SECONDS = 5.0


def home() -> Path:
    """Return the folder of all traces of this user, made if it is not there.

    Raises:
        EngineError: It cannot be made, or somebody else could write to it.
    """
    if os.getuid() == 0:
        path = Path("/run/sandbox-magic")
    elif runtime := os.environ.get("XDG_RUNTIME_DIR"):
        path = Path(runtime, "sandbox-magic")
    else:  # in /tmp itself, where nobody can rename or remove what is another's: a folder in between might be another's
        path = Path(f"/tmp/sandbox-magic-{os.getuid()}")  # noqa: S108 # checked below
    try:
        path.mkdir(mode=0o711, parents=True, exist_ok=True)
        facts = path.lstat()
    except OSError as error:
        raise EngineError(f"{path} cannot be made: {error.strerror}") from None
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o022:
        raise EngineError(f"{path} is not a folder that only this user can change; remove it")
    path.chmod(0o711)
    return path


class Trace:
    """The folder of one sandbox.

    Attributes:
        ident: The sandbox's id.
        folder: All of it.
    """

    def __init__(self, ident: str) -> None:
        self.ident = ident
        self.folder = home() / ident

    def groups(self) -> list[Path]:
        """Return the control groups that the sandbox may get."""
        return [*cgroups.places(self.ident[:12]), *scopes.places(self.ident[:12])]

    @property
    def pipes(self) -> Path:
        """The folder that is shown inside; what is in it can be opened by name, not listed."""
        return self.folder / "d"

    @classmethod
    def make(cls, uid: int) -> Trace:
        """Make the folder of a new sandbox, whose user has this id on the host.

        It has a name with its maker in it until it has its record, so that nobody takes it for a sandbox before, and
        its maker's death can be proved at any moment.
        """
        trace = cls(secrets.token_hex(32))
        final = trace.folder
        trace.folder = home() / f".{os.getpid()}-{started_at(os.getpid())}-{trace.ident}"
        trace.folder.mkdir(mode=0o711)
        trace.folder.chmod(0o711)
        trace.pipes.mkdir()
        os.chown(trace.pipes, uid, uid)
        trace.pipes.chmod(0o311)
        trace.record(groups=trace.groups())
        trace.folder = trace.folder.rename(final)
        return trace

    def record(self, pid: int = 0, labels: Mapping[str, str] | None = None, groups: Sequence[Path] = ()) -> None:
        """Write down what the sandbox is; without a process it is being made, and belongs to us."""
        facts = {
            "pid": pid,
            "started": started_at(pid or os.getpid()) or "",
            "maker": os.getpid(),
            "labels": dict(labels or {}),
            "groups": [str(path) for path in groups],
        }
        partial = self.folder / "record.partial"
        partial.write_text(json.dumps(facts), encoding="utf-8")
        partial.replace(self.folder / "record.json")

    def _facts(self) -> dict[str, object]:
        try:
            facts = json.loads((self.folder / "record.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return facts if isinstance(facts, dict) else {}

    def labels(self) -> dict[str, str]:
        """Return what was written on it; nothing while it is being made."""
        labels = self._facts().get("labels")
        return {str(key): str(value) for key, value in labels.items()} if isinstance(labels, dict) else {}

    def leftover(self) -> bool:
        """Whether nothing of it runs any more."""
        facts = self._facts()
        pid = facts.get("pid") or facts.get("maker")
        return isinstance(pid, int) and ended(pid, str(facts.get("started")))

    def end(self) -> None:
        """End the sandbox if it still runs, and remove what it leaves. Again is allowed."""
        facts = self._facts()
        pid, started = facts.get("pid"), facts.get("started")
        if isinstance(pid, int) and pid:
            deadline = time.monotonic() + _END_SECONDS
            while started_at(pid) == started and time.monotonic() < deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                time.sleep(0.002)
        groups = facts.get("groups")
        cgroups.remove([Path(str(path)) for path in groups] if isinstance(groups, list) else [])
        _remove_folder(self.folder)


def all_traces() -> list[Trace]:
    """Return the traces of this user's sandboxes, of every process."""
    return [Trace(path.name) for path in sorted(home().iterdir()) if (path / "record.json").exists()]


def tidy() -> list[str]:
    """Remove the traces of sandboxes that have ended, or were never finished; return their ids."""
    for path in home().glob(".*-*-*"):
        pid, started, _ = path.name[1:].split("-")
        if pid.isdigit() and ended(int(pid), started):
            _remove_folder(path)
    over = [trace for trace in all_traces() if trace.leftover()]
    for trace in over:
        trace.end()
    end_strays([trace.ident for trace in over])
    return [trace.ident for trace in over]


def end_strays(idents: Sequence[str]) -> None:
    """End what is left of bubblewraps that were being started.

    A child of bubblewrap waits for its parent before anything ties its life to that: killed in that moment, the parent
    leaves it waiting for ever. A sandbox whose process 1 runs is no longer called bubblewrap.
    """
    for entry in Path("/proc").glob("[0-9]*") if idents else ():
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            told = (entry / "cmdline").read_bytes()
            if any(ident.encode() in told for ident in idents) and (entry / "exe").readlink().name == "bwrap":
                os.kill(int(entry.name), signal.SIGKILL)


def _remove_folder(path: Path) -> None:
    with contextlib.suppress(OSError):  # it is gone already
        (path / "d").chmod(0o700)  # cannot be listed otherwise, but by root
    shutil.rmtree(path, ignore_errors=True)
