"""`%%sandbox`, `%sandbox` and `%sandboxctl`: what IPython calls, and how it comes to know them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import MethodType
from typing import TYPE_CHECKING, Any

from IPython.core.magic import line_cell_magic, line_magic, magics_class, no_var_expand

from sandbox_magic.errors import InvalidOptions
from sandbox_magic.jupyter import control, options
from sandbox_magic.jupyter.settings import Settings
from sandbox_magic.jupyter.status import one_line
from sandbox_magic.jupyter.variables import nothing_ran
from sandbox_magic.manager import current_manager, sweep_in_background
from sandbox_magic.result import Result

if TYPE_CHECKING:
    from sandbox_magic.jobs import Job

NAME = "sandbox"
ALIAS = "sbx"


def _explained(text: Callable[[], str]) -> Callable[[Any], Any]:  # any, as IPython's own decorators are
    """Let `%sandbox?` tell the same as `%sandbox -h`."""

    def mark(function: Any) -> Any:
        function.__doc__ = f"{function.__doc__}\n\n{text()}"
        return function

    return mark


@magics_class
class SandboxMagics(Settings):
    """The magics of one IPython shell; `%config SandboxMagics` lists the settings."""

    @no_var_expand
    @line_cell_magic(NAME)
    @line_cell_magic(ALIAS)
    @_explained(options.help_text)
    def sandbox(self, line: str, cell: str | None = None) -> Result | Job | None:
        """Run the cell, or the one command of the line, in a shell that outlives it."""
        shell: Any = self.shell  # the types of some releases say that it may be missing
        try:
            given, code = options.parse_line(line) if cell is None else (options.parse_cell(line), cell)
            if given.help:
                sys.stdout.write(options.help_text())
                return None
            from sandbox_magic.jupyter.cell import CellRun  # noqa: PLC0415 # brings the engines' side in, at first use

            result = CellRun(given, shell, self, returned=cell is None).run(code, current_manager())
        except InvalidOptions:
            nothing_ran(shell.user_ns)
            raise
        return result if cell is None else None

    @no_var_expand
    @line_magic
    @_explained(control.help_text)
    def sandboxctl(self, line: str) -> None:
        """Steer the sandboxes of this kernel."""
        control.Control(self.shell, current_manager(), self).run(line)


def load_ipython_extension(ipython: Any) -> None:
    """Register the magics; nothing is started and nothing is printed."""
    unload_ipython_extension(ipython)  # a second load replaces the first
    try:
        magics = SandboxMagics(shell=ipython)
    except Exception:
        _forget_settings(ipython)  # its base class has entered it already
        raise
    owner = _owner(ipython, NAME)
    if owner and not magics.take_name:
        for named in magics.magics.values():
            named.pop(NAME, None)
        sys.stderr.write(
            f"sandbox_magic: %%{NAME} belongs to {one_line(owner)} and was left alone; ours is %%{ALIAS}. "
            "To give us the name: %config SandboxMagics.take_name = True\n"
        )
    ipython.register_magics(magics)
    magics.observe(lambda change: _take_name(ipython, magics) if change["new"] else None, names=["take_name"])
    sweep_in_background()


def unload_ipython_extension(ipython: Any) -> None:
    """Remove the magics. The sandboxes stay, so that a reload finds them; `%sandboxctl stop --all` closes them."""
    for named in ipython.magics_manager.magics.values():
        for name in [name for name, function in named.items() if _is_ours(function)]:
            del named[name]
    _forget_settings(ipython)


def _take_name(ipython: Any, magics: SandboxMagics) -> None:
    for kind in ("line", "cell"):
        ipython.magics_manager.magics[kind][NAME] = magics.sandbox


def _forget_settings(ipython: Any) -> None:
    ipython.configurables[:] = [known for known in ipython.configurables if not isinstance(known, SandboxMagics)]


def _owner(ipython: Any, name: str) -> str:
    """Return the module whose magic has this name; empty if it is free."""
    found = ipython.magics_manager.magics["cell"].get(name) or ipython.magics_manager.magics["line"].get(name)
    return "" if found is None else str(getattr(found, "__module__", "") or "another extension")


def _is_ours(function: object) -> bool:
    # By type first: to ask IPython's own magics for an attribute loads those that are not loaded yet (IPython 9).
    return isinstance(function, MethodType) and isinstance(function.__self__, SandboxMagics)
