"""`SandboxManager`: the named sandboxes of one kernel process; nothing stays behind when it ends."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Protocol

from sandbox_magic.errors import InvalidOptions, unknown_name
from sandbox_magic.spec import SandboxSpec

if TYPE_CHECKING:
    from sandbox_magic.sandbox import Sandbox

CLOSE_AT_EXIT = 0.8  # seconds; who waits for a kernel to end kills it 2.5 s after asking
SWEEP_DELAY = 2.0  # seconds; keeps the engine's import and its calls out of the first cell's way


class MakeSandbox(Protocol):
    """What makes a sandbox that is not started yet."""

    def __call__(self, *, spec: SandboxSpec, name: str, on_progress: Callable[[str], None]) -> Sandbox:
        """Return a new sandbox for `spec`."""


def _make_sandbox(*, spec: SandboxSpec, name: str, on_progress: Callable[[str], None]) -> Sandbox:
    from sandbox_magic.sandbox import Sandbox  # noqa: PLC0415 # the extension loads before anyone needs an engine

    return Sandbox(spec=spec, name=name, on_progress=on_progress)


class _Held:
    """One sandbox and who listens to its progress now: another cell each time."""

    def __init__(self, make: MakeSandbox, spec: SandboxSpec, name: str) -> None:
        self.listener: Callable[[str], None] | None = None
        self.fresh = False  # reset, and nothing ran in it since
        self.sandbox = make(spec=spec, name=name, on_progress=self._report)

    def _report(self, text: str) -> None:
        if self.listener is not None:
            self.listener(text)


class SandboxManager:
    """Hold the named sandboxes of one process; thread-safe; useless on purpose in a forked child.

    Args:
        make: What makes a sandbox.
    """

    def __init__(self, make: MakeSandbox = _make_sandbox) -> None:
        self._make = make
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}

    def get(
        self,
        name: str = "default",
        wish: Mapping[str, Any] | None = None,
        defaults: Mapping[str, Any] | None = None,
        *,
        on_progress: Callable[[str], None] | None = None,
    ) -> Sandbox:
        """Return the sandbox of this name, made if there is none; nothing is started.

        Args:
            name: Which sandbox.
            wish: Fields of `SandboxSpec` that the user asked for now.
            defaults: Fields of `SandboxSpec` that count for a new sandbox where `wish` is silent.
            on_progress: Called with one-line texts while the sandbox is being prepared; replaces the last one.

        Raises:
            InvalidOptions: The sandbox runs already and `wish` differs from what it was started with.
        """
        self._refuse_in_child()
        wish = wish or {}
        with self._lock:
            held = self._held.get(name)
            used = held is not None and _ever_used(held.sandbox)
            # A sandbox whose start failed is forgotten with its wish: a misspelt image must not stay.
            if held and used:
                spec = replace(held.sandbox.spec, **wish) if wish else held.sandbox.spec
            else:
                spec = SandboxSpec(**{**(defaults or {}), **wish})
            if held is None or spec != held.sandbox.spec:
                if held is not None:
                    if used and not held.fresh:
                        raise _already_runs(held.sandbox.spec, spec, name)
                    held.sandbox.close()
                held = self._held[name] = _Held(self._make, spec, name)
            held.fresh = False
            held.listener = on_progress
            return held.sandbox

    def find(self, name: str = "default") -> Sandbox:
        """Return the sandbox of this name, which must be there.

        Raises:
            InvalidOptions: There is none; the sentence names those that are there.
        """
        return self._find(name).sandbox

    def names(self) -> list[str]:
        """Return the names of all sandboxes, in the order of their making; none in a forked child."""
        if os.getpid() != self._owner:
            return []
        with self._lock:
            return list(self._held)

    def reset(self, name: str = "default", *, on_progress: Callable[[str], None] | None = None) -> None:
        """Give the sandbox of this name a fresh start; the next `get` may also ask for another spec.

        Args:
            name: Which sandbox.
            on_progress: As for `get`.

        Raises:
            InvalidOptions: There is none.
        """
        held = self._find(name)
        held.listener = on_progress
        held.sandbox.reset()
        held.fresh = True

    def close(self, name: str = "default") -> None:
        """Close the sandbox of this name; the name is free afterwards.

        Raises:
            InvalidOptions: There is none.
        """
        self._refuse_in_child()
        with self._lock:
            held = self._held.pop(name, None)
            names = sorted(self._held)
        if held is None:
            raise unknown_name("sandbox", name, names, none="there is none yet")
        held.sandbox.close()

    def close_all(self, timeout: float = CLOSE_AT_EXIT) -> None:
        """Close every sandbox at once; what is not done after `timeout` seconds ends with the process.

        A forked child closes nothing: the sandboxes are its parent's.
        """
        if os.getpid() != self._owner:
            return
        with self._lock:
            sandboxes = [held.sandbox for held in self._held.values()]
            self._held = {}
        end = time.monotonic() + timeout
        for thread in [thread for sandbox in sandboxes if (thread := _close_beside(sandbox))]:
            thread.join(max(0.0, end - time.monotonic()))

    def _find(self, name: str) -> _Held:
        self._refuse_in_child()
        with self._lock:
            held = self._held.get(name)
            names = sorted(self._held)
        if held is None:
            raise unknown_name("sandbox", name, names, none="there is none yet")
        return held

    def _refuse_in_child(self) -> None:
        if os.getpid() != self._owner:
            raise InvalidOptions("this process was forked from the one that holds the sandboxes; make a `Sandbox` here")


def _ever_used(sandbox: Sandbox) -> bool:
    """Say whether the sandbox runs or has run; one that vanished keeps its spec and says so itself."""
    return sandbox.started or sandbox.last is not None


def _already_runs(spec: SandboxSpec, asked: SandboxSpec, name: str) -> InvalidOptions:
    other = [field.name for field in fields(spec) if getattr(asked, field.name) != getattr(spec, field.name)]
    facts = ", ".join(f"{field} is {_shown(getattr(spec, field))}" for field in other)
    which = "" if name == "default" else f" -n {name}"
    return InvalidOptions(
        f"sandbox {name!r} was started already and its {facts}: choose another --name to have both, "
        f"or run `%sandboxctl reset{which}` first (its files and state are lost)"
    )


def _shown(value: object) -> str:
    return "none" if value == () else "the profile's" if value is None else repr(value)


def _close_beside(sandbox: Sandbox) -> threading.Thread | None:
    """Close in a thread of its own; here, if the interpreter is ending and starts none (Python 3.12 and later)."""
    thread = threading.Thread(target=_close_quietly, args=(sandbox,), name="sandbox-close", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        _close_quietly(sandbox)
        return None
    return thread


def _close_quietly(sandbox: Sandbox) -> None:
    with contextlib.suppress(Exception):  # nobody is left to tell, and the sandbox ends with our process anyway
        sandbox.close()


_managers: dict[int, SandboxManager] = {}  # a forked child keeps its parent's here, unused: dropping it would end it
_managers_lock = threading.Lock()
_swept: set[int] = set()


def current_manager() -> SandboxManager:
    """Return the manager of this process; it outlives a reload of the extension and closes all at exit."""
    with _managers_lock:
        manager = _managers.get(os.getpid())
        if manager is None:
            manager = _managers[os.getpid()] = SandboxManager()
            atexit.register(manager.close_all)
        return manager


def sweep_in_background(delay: float = SWEEP_DELAY) -> None:
    """Remove what dead kernels left behind: once per process, a little later, without a word."""
    with _managers_lock:
        if os.getpid() in _swept:
            return
        _swept.add(os.getpid())
    timer = threading.Timer(delay, _sweep)
    timer.daemon = True
    timer.name = "sandbox-sweep"
    timer.start()


def _sweep() -> None:
    with contextlib.suppress(Exception):  # `%sandboxctl gc` tells what is wrong; here nobody asked
        from sandbox_magic import engines  # noqa: PLC0415 # heavy, and often never needed

        engines.sweep_all()


def _renew_lock_in_child() -> None:
    """Give the child a free lock: another thread may have held it at the moment of the fork."""
    global _managers_lock  # noqa: PLW0603 # there is one per process
    _managers_lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock_in_child)
