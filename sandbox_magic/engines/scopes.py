"""Limits by systemd's user manager: a scope for each sandbox, where an ordinary user can make no group himself.

Of a session's processes (a terminal, ssh) the groups are root's. But the user's own manager may limit what is below it,
and moves a user's processes there when asked. The scope ends with its last process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from sandbox_magic.engines import cgroups
from sandbox_magic.errors import EngineError

_SECONDS = 20.0  # for an answer of the manager, and then for what it does
_SYSTEMD = "org.freedesktop.systemd1"
_PATH = "/org/freedesktop/systemd1"
_refused = threading.Event()  # once it has said no it is not asked again: each time costs a start


class Refused(EngineError):
    """The manager has made no scope, or one whose limits do not hold; nothing has run in it."""


class Scope(cgroups.Leaf):
    """The group of a scope, which is made when its processes join it."""

    def __init__(self, folder: Path, wish: cgroups.Wish) -> None:
        super().__init__("cgroup v2, a scope of systemd's user manager", [folder])
        self._wish = wish

    def join(self, *processes: int) -> None:
        """Have the scope made with these processes in it, and read its limits back.

        Raises:
            Refused: There is none that holds them all.
        """
        (folder,) = self.folders
        try:
            _ask(*_request(folder.name, self._wish, processes))
            self._wait(processes)
            # When the kernel ends a process for want of memory, the manager would end the whole scope; but not one that
            # is left to itself. Only a newer manager can be told so (`OOMPolicy`, 253).
            unit = folder.name.replace("-", "_2d").replace(".", "_2e")
            _ask(f"{_PATH}/unit/{unit}", f"{_SYSTEMD}.Scope", "Abandon")
            cgroups.compare(folder, self._wish)
        except (OSError, EngineError) as error:
            _refused.set()
            raise Refused(f"systemd's user manager does not limit the sandbox: {error}") from None

    def _wait(self, processes: Iterable[int]) -> None:
        deadline = time.monotonic() + _SECONDS
        while not all(self.holds(process) or not Path(f"/proc/{process}").exists() for process in processes):
            if time.monotonic() > deadline:
                raise EngineError(f"the scope did not come up in {_SECONDS:g} s")
            time.sleep(0.002)  # it tells only those who listen on its bus


def scope(name: str, wish: cgroups.Wish) -> Scope | None:
    """Return a scope to be made; `None` where this user has no manager that can limit all of the wish."""
    if _refused.is_set() or shutil.which("busctl") is None:
        return None
    return next((Scope(folder, wish) for folder in places(name)), None)


def places(name: str) -> list[Path]:
    """Return the folder of the group that the scope of this name will have, if there can be one."""
    user = os.getuid()
    manager = cgroups.ROOT / f"user.slice/user-{user}.slice/user@{user}.service"
    if user == 0 or not _bus().exists() or not cgroups.controllers(manager) >= cgroups.CONTROLLERS:
        return []
    return [manager / "app.slice" / f"sandbox-magic-{name}.scope"]


def _bus() -> Path:
    """Return where the user's manager listens, whatever the environment says."""
    return Path(f"/run/user/{os.getuid()}/bus")


def _request(unit: str, wish: cgroups.Wish, processes: Iterable[int]) -> list[str]:
    """Return the call that makes it, in the words of busctl."""
    pids = [str(process) for process in processes]
    properties = [
        ["Description", "s", "A sandbox of sandbox_magic"],
        ["Slice", "s", "app.slice"],
        ["CollectMode", "s", "inactive-or-failed"],
        ["MemoryMax", "t", str(wish.memory)],
        ["MemorySwapMax", "t", "0"],
        ["TasksMax", "t", str(wish.pids)],
        ["CPUQuotaPerSecUSec", "t", str(int(wish.cpus * 1_000_000))],
        ["PIDs", "au", str(len(pids)), *pids],
    ]
    words = [word for each in properties for word in each]
    call = (_PATH, f"{_SYSTEMD}.Manager", "StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail")
    return [*call, str(len(properties)), *words, "0"]


def _ask(*request: str) -> None:
    bus = ("busctl", f"--address=unix:path={_bus()}", f"--timeout={_SECONDS:g}", "--quiet")
    try:
        done = subprocess.run(
            [*bus, "call", _SYSTEMD, *request],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS + 5,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise EngineError("it does not answer") from None
    if done.returncode != 0:
        raise EngineError(done.stderr.strip()[-300:] or f"busctl ended with exit code {done.returncode}")
