"""The command `sandbox-magic`: a demonstration, what works here, and the sweep. Exit code 0 means that it worked."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sandbox_magic import engines
from sandbox_magic._version import __version__
from sandbox_magic.ansi import sanitize
from sandbox_magic.doctor import examine
from sandbox_magic.errors import InvalidOptions, SandboxError

QUICKSTART = Path("notebooks") / "quickstart.ipynb"
OUTPUT = Path("build-output")
CELL_SECONDS = 300  # a first pull of the image, or a package installation, on a slow line

_GREEN, _BOLD, _RED, _PLAIN = "\x1b[32m", "\x1b[1m", "\x1b[31m", "\x1b[0m"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0 done, 1 failed, 2 wrong arguments, 130 interrupted."""
    given = _parser().parse_args(arguments)
    try:
        return int(given.run(given))
    except SandboxError as error:
        sys.stderr.write(f"sandbox-magic: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("sandbox-magic: interrupted\n")
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more at exit
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sandbox-magic", description="Notebook cells in a sandbox's shell.")
    parser.add_argument("--version", action="version", version=f"sandbox-magic {__version__}")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    verb = verbs.add_parser("demo", help="run the quickstart notebook in a real kernel and show it here")
    verb.add_argument("notebook", nargs="?", type=Path, help="another notebook to run")
    verb.add_argument(
        "--output", type=Path, default=OUTPUT, metavar="FOLDER", help="where the results go (%(default)s)"
    )
    verb.set_defaults(run=demo)

    verb = verbs.add_parser("doctor", help="tell which engines work here, which limits they keep, what to mend")
    verb.add_argument("--image", help="try the limits with this image, which must be there")
    verb.add_argument("--quick", action="store_true", help="start no sandbox to try the limits")
    verb.add_argument("--json", action="store_true", help="for programs")
    verb.set_defaults(run=doctor)

    verb = verbs.add_parser("gc", help="remove the sandboxes that dead processes left behind")
    verb.set_defaults(run=gc)
    return parser


# ---- doctor and gc


def doctor(given: argparse.Namespace) -> int:
    """Tell what works here and how well; the exit code is 0 if at least one engine works."""
    report = examine(image=given.image, quick=given.quick)
    if given.json:
        _say(json.dumps(report.data(), indent=2))
    else:
        for line in report.lines():
            _say(line)
    return 0 if report.usable else 1


def gc(_given: argparse.Namespace) -> int:
    """Remove what dead processes left behind, on every engine that answers; say what was removed, what left, and why.

    Raises:
        EngineUnavailable: None answers: nothing can be said about what is left.
    """
    for line in engines.sweep_report():
        _say(sanitize(line))
    return 0


# ---- demo


def demo(given: argparse.Namespace) -> int:
    """Execute a notebook, show it while it runs, and leave it and a page of it.

    Raises:
        InvalidOptions: The notebook or a library is missing.
        EngineUnavailable: No engine answers.
    """
    client_class, nbformat, exporter_class, failures = _libraries()
    source = given.notebook or _quickstart()
    try:
        notebook = nbformat.read(source, as_version=4)
    except (OSError, ValueError) as error:
        raise InvalidOptions(f"{source} is not a notebook that can be read: {error}") from error
    engines.working()  # the reason on one screen, before a kernel is started
    failure = ""
    with tempfile.TemporaryDirectory(prefix="sandbox-demo-") as folder:  # what the cells write goes with it
        screen = _Screen(notebook)
        client = _client(client_class, notebook, folder, screen)
        try:
            client.execute()
            screen.end()
        except failures as error:
            failure = _COLOUR.sub("", f"{source.name} failed: {str(error).strip().splitlines()[-1]}")
    page, _ = exporter_class().from_notebook_node(notebook)
    given.output.mkdir(parents=True, exist_ok=True)
    executed = given.output / source.name
    nbformat.write(notebook, executed)
    executed.with_suffix(".html").write_text(page, encoding="utf-8")
    _say(f"\nthe executed notebook: {executed}\nthe same as a page:    {executed.with_suffix('.html')}")
    if failure:
        sys.stdout.flush()
        sys.stderr.write(f"sandbox-magic: {failure}\n")
    return 1 if failure else 0


def _libraries() -> tuple[Any, ...]:
    try:
        import nbformat  # noqa: PLC0415 # an extra, and slow
        from nbclient import NotebookClient  # noqa: PLC0415
        from nbclient.exceptions import CellExecutionError, CellTimeoutError  # noqa: PLC0415
        from nbconvert import HTMLExporter  # noqa: PLC0415
    except ImportError as error:
        raise InvalidOptions(
            f"the demo needs {error.name}, which is not installed: pip install 'sandbox-magic[demo]'"
        ) from error
    return NotebookClient, nbformat, HTMLExporter, (CellExecutionError, CellTimeoutError, RuntimeError)


def _quickstart() -> Path:
    """Return the quickstart of the checkout that this package is in, or else of this folder."""
    for folder in (Path(__file__).resolve().parent.parent, Path.cwd()):
        if (folder / QUICKSTART).is_file():
            return folder / QUICKSTART
    raise InvalidOptions(f"there is no {QUICKSTART} here: run this in a checkout of sandbox-magic, or name a notebook")


def _client(client_class: Any, notebook: Any, folder: str, screen: _Screen) -> Any:
    """Return a client that executes the notebook in `folder` with this very Python and shows it as it comes."""
    from jupyter_client.kernelspec import KernelSpecManager  # noqa: PLC0415 # comes with the demo's libraries
    from jupyter_client.manager import AsyncKernelManager  # noqa: PLC0415

    class Manager(AsyncKernelManager):
        """Knows one kernel: another one, installed for this user as python3, would not have this package."""

        def _kernel_spec_manager_default(self) -> KernelSpecManager:
            return KernelSpecManager(kernel_dirs=[])

    class Client(client_class):  # type: ignore[misc] # it is Any: the library is optional
        """Passes each message on after it was stored in the notebook."""

        def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
            screen.show(msg["msg_type"], msg["content"])
            return super().process_message(msg, cell, cell_index)

    return Client(
        notebook,
        kernel_name="python3",
        kernel_manager_class=Manager,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # newer kernels warn that TCP is not encrypted
        timeout=CELL_SECONDS,
        coalesce_streams=True,  # one output below a cell, however many pieces it came in
        resources={"metadata": {"path": folder}},
        on_cell_start=screen.begin,
    )


class _Screen:
    """Writes a notebook to stdout while it is being executed.

    Args:
        notebook: Its text cells are shown when the code cell below them is reached.
    """

    def __init__(self, notebook: Any) -> None:
        self._cells = notebook.cells
        self._next = 0
        self._count = 0
        self._colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._in_line = False

    def begin(self, cell: Any, cell_index: int) -> None:
        """Show the text above a cell, then the cell."""
        self._show_text(cell_index)
        if cell.cell_type == "code" and cell.source.strip():
            self._count += 1
            prompt = f"In [{self._count}]: "
            first, *rest = cell.source.splitlines()
            self._write(f"\n{self._paint(_GREEN, prompt)}{self._paint(_BOLD, first)}\n")
            for line in rest:
                self._write(f"{' ' * len(prompt)}{self._paint(_BOLD, line)}\n")

    def end(self) -> None:
        """Show the text below the last code cell."""
        self._show_text(len(self._cells))

    def show(self, kind: str, content: dict[str, Any]) -> None:
        """Show one message of the kernel."""
        match kind:
            case "stream":
                self._write(content["text"])
            case "display_data" | "update_display_data" | "execute_result":
                self._fresh_line()
                self._write(content["data"].get("text/plain", "(not text)") + "\n")
            case "error":
                self._fresh_line()
                self._write(self._paint(_RED, "\n".join(content["traceback"])) + "\n")

    def _show_text(self, end: int) -> None:
        for cell in self._cells[self._next : end]:
            if cell.cell_type == "markdown":
                self._fresh_line()
                self._write(f"\n{cell.source}\n")
        self._next = max(self._next, end)

    def _fresh_line(self) -> None:
        if self._in_line:
            self._write("\n")

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._colours else text

    def _write(self, text: str) -> None:
        if not text:
            return
        if not self._colours:
            text = _COLOUR.sub("", text)
        self._in_line = not text.endswith("\n")
        sys.stdout.write(text)
        sys.stdout.flush()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
