"""The limits of one sandbox: proved when it starts, named when a cell has run into one."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from sandbox_magic.engines.base import Machine
from sandbox_magic.errors import LimitNotEnforced, SandboxError
from sandbox_magic.result import Result
from sandbox_magic.session import Session
from sandbox_magic.spec import SandboxSpec, size_text

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
        self._seen: Result | None = None
        self._notes = [f"not enforced: {self._unenforced}"] if missing else []

    def facts(self) -> dict[str, object]:
        """Return what `status` shows of them."""
        facts: dict[str, object] = {"not enforced": self._unenforced} if self._unenforced else {}
        if "memory" in (counts := self._reached()):
            facts["oom killed"] = counts["memory"] > 0
        return facts

    def look(self, result: Result | None) -> list[str]:
        """Say which limits were reached since the last look, with their values; nothing if the cell went well."""
        notes, self._notes = self._notes, []
        if result is None or result is self._seen or result.exit_code == 0:
            return notes
        self._seen = result
        return notes + self._news() + self._space(result)

    def _reached(self) -> Mapping[str, int]:
        with contextlib.suppress(SandboxError):  # it has ended, or nothing in it answers: then that is what is said
            return self._machine.reached(self._control.call)
        return {}

    def _news(self) -> list[str]:
        counts = self._reached()
        new = {name: count - self._counts.get(name, 0) for name, count in counts.items()}
        self._counts = counts or self._counts
        found = []
        if killed := new.get("memory", 0):
            found.append(f"the memory limit ({size_text(self._spec.memory_bytes)}) was reached: {killed} killed")
        if new.get("processes", 0):
            found.append(f"the limit of {self._spec.pids_most} processes was reached")
        return found

    def _space(self, result: Result) -> list[str]:
        if _TOO_LARGE in result.stderr_bytes and self._spec.limits.file_size is not None:
            return [f"the limit of a file's size ({size_text(self._spec.limits.file_size)}) was reached"]
        if _FULL not in result.stderr_bytes:
            return []
        bounded = self._machine.in_memory
        if not bounded:
            return ["the engine's disk is full: this profile has no limit of its own"]
        sizes = ", ".join(f"{folder.path} {size_text(folder.size)}" for folder in bounded)
        return [f"a folder of the sandbox is full: {sizes}"]
