"""The limits of one sandbox: proved when it starts, named when a cell has run into one."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping

from sandbox_magic.engines.base import Machine
from sandbox_magic.errors import LimitNotEnforced, SandboxError, ShellExited
from sandbox_magic.result import Result
from sandbox_magic.session import Session
from sandbox_magic.spec import SandboxSpec, size_text

# How shells say that they cannot fork: for engines that do not count.
_NO_PROCESS = re.compile(rb"fork.*resource temporarily unavailable|cannot fork", re.IGNORECASE)
_ANSWER_SECONDS = 5.0  # a fork bomb leaves little time to others
_FULL, _TOO_LARGE = b"No space left on device", b"File too large"


class Bounds:
    """The limits of a running sandbox."""

    def __init__(self, engine: str, machine: Machine, session: Session, spec: SandboxSpec) -> None:
        """Prove them, before anything of the user's runs.

        Args:
            engine: The name of the engine.
            machine: The sandbox.
            session: An open one in it.
            spec: The wish.

        Raises:
            LimitNotEnforced: Some do not hold, and the wish does not allow that.
        """
        missing = machine.unenforced(session.ask)
        if missing and not spec.allow_degraded:
            raise LimitNotEnforced(engine, missing)
        self._unenforced = "; ".join(missing)
        self._machine = machine
        self._control = session.control
        self._spec = spec
        self._counts: Mapping[str, int] = {}
        self._reached_one = False
        self._seen: Result | None = None
        self._notes = [f"not enforced: {self._unenforced}"] if missing else []

    def facts(self) -> dict[str, object]:
        """Return what `status` shows of them."""
        facts: dict[str, object] = {"not enforced": self._unenforced} if self._unenforced else {}
        if "memory" in (counts := self._reached()):
            facts["oom killed"] = counts["memory"] > 0
        return facts

    def remarks(self) -> list[str]:
        """Take what is to be said once."""
        notes, self._notes = self._notes, []
        return notes

    def look(self, result: Result) -> tuple[str, ...]:
        """Say which limits were reached since the last look, with their values; nothing if the cell went well."""
        if result is self._seen or result.exit_code == 0:
            return ()
        self._seen = result
        news = self._news(result.stderr_bytes)
        if news and _FULL not in result.stderr_bytes:
            return tuple(news)  # without a free process nobody can look at the folders
        return (*news, *self._space(result))

    def settle(self) -> None:
        """Before a cell: what the leftovers of an earlier one ran into meanwhile is not for this one to answer."""
        if self._reached_one:
            self._counts = self._reached() or self._counts

    def explained(self, error: ShellExited) -> ShellExited:
        """Return the error of a shell that could not be started, with the limit that is the reason if one is."""
        told, limits = bool(self._counts), self._news(str(error).encode())
        if limits:
            why = f"no shell can be started: {' and '.join(limits)}, by what earlier cells have left in the background"
        elif told and not self._reached():
            why = f"no shell can be started, and nothing inside answers, as when there is no free process: {error}"
        else:
            return error
        return ShellExited(f"{why}. `%sandboxctl reset` (Sandbox.reset) ends all of it, and its files are lost")

    def _reached(self) -> Mapping[str, int]:
        with contextlib.suppress(SandboxError):  # it has ended, or nothing in it answers: then that is what is said
            return self._machine.reached(lambda text: self._control.call(text, timeout=_ANSWER_SECONDS))
        return {}

    def _news(self, said: bytes) -> list[str]:
        counts = self._reached()
        new = {name: count - self._counts.get(name, 0) for name, count in counts.items()}
        self._counts = counts or self._counts
        self._reached_one = self._reached_one or any(new.values())
        found = []
        if killed := new.get("memory", 0):
            found.append(f"the memory limit ({size_text(self._spec.memory_bytes)}) was reached: {killed} killed")
        if new.get("processes", "processes" not in counts and _NO_PROCESS.search(said)):
            found.append(f"the limit of {self._spec.pids_most} processes was reached")
        return found

    def _space(self, result: Result) -> list[str]:
        if _TOO_LARGE in result.stderr_bytes and self._spec.limits.file_size is not None:
            return [f"the limit of a file's size ({size_text(self._spec.limits.file_size)}) was reached"]
        folders = {folder.path: size_text(folder.size) for folder in (self._spec.shm, *self._machine.in_memory)}
        full = self._full(list(folders))
        said = _FULL in result.stderr_bytes
        if said and not full and not self._machine.in_memory:
            return ["the engine's disk is full: this profile has no limit of its own"]
        sizes = ", ".join(f"{path} {size}" for path, size in folders.items() if path in full or (said and not full))
        return [f"a folder of the sandbox is full: {sizes}"] if sizes else []

    def _full(self, paths: list[str]) -> set[str]:
        """Return those of the folders that have no room now: not every program says why it could not write."""
        with contextlib.suppress(SandboxError):  # as in `_reached`
            lines = [line.split() for line in self._control.call(f"df -P {' '.join(paths)}").splitlines()]
            return {words[5] for words in lines if len(words) == 6 and words[3] == "0"}
        return set()
