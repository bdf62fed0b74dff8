"""Run commands on data that you do not trust, in one persistent shell inside a sandbox that leaves nothing behind.

In a notebook: ``%load_ext sandbox_magic``, then ``%%sandbox`` cells. In a program: `Sandbox`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sandbox_magic._version import __version__

if TYPE_CHECKING:
    from sandbox_magic.errors import (
        CommandFailed,
        CommandTimeout,
        EngineError,
        EngineUnavailable,
        ImageNotFound,
        InvalidOptions,
        LimitNotEnforced,
        ProtocolError,
        SandboxError,
        SessionBusy,
        SessionClosed,
        SessionError,
        ShellExited,
        StartTimeout,
        TransferError,
    )
    from sandbox_magic.manager import SandboxManager
    from sandbox_magic.protocol import Output
    from sandbox_magic.result import Result
    from sandbox_magic.sandbox import Sandbox
    from sandbox_magic.spec import Mount, SandboxSpec

_HOMES = {
    "Mount": "spec",
    "Output": "protocol",
    "Result": "result",
    "Sandbox": "sandbox",
    "SandboxManager": "manager",
    "SandboxSpec": "spec",
}

__all__ = [
    "CommandFailed",
    "CommandTimeout",
    "EngineError",
    "EngineUnavailable",
    "ImageNotFound",
    "InvalidOptions",
    "LimitNotEnforced",
    "Mount",
    "Output",
    "ProtocolError",
    "Result",
    "Sandbox",
    "SandboxError",
    "SandboxManager",
    "SandboxSpec",
    "SessionBusy",
    "SessionClosed",
    "SessionError",
    "ShellExited",
    "StartTimeout",
    "TransferError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use: importing the package loads neither IPython nor an engine's library."""
    if name not in __all__:
        raise AttributeError(f"module 'sandbox_magic' has no attribute {name!r}")
    return getattr(import_module(f"sandbox_magic.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    """Name what there is, so that an editor can offer it before it is imported."""
    return sorted({*globals(), *__all__})


def load_ipython_extension(ipython: Any) -> None:
    """Register the magics (``%load_ext sandbox_magic``)."""
    from sandbox_magic.jupyter.magics import load_ipython_extension as load  # noqa: PLC0415 # brings IPython in

    load(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    """Remove the magics (``%unload_ext sandbox_magic``); running sandboxes stay until the kernel ends."""
    from sandbox_magic.jupyter.magics import unload_ipython_extension as unload  # noqa: PLC0415

    unload(ipython)
