"""The verbs of `%sandboxctl`: look at the sandboxes of this kernel, steer them, move files."""

from __future__ import annotations

import contextlib
import difflib
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox_magic.errors import InvalidOptions
from sandbox_magic.jupyter.cell import LATE, LATE_OF
from sandbox_magic.jupyter.options import CellOptions, parse_cell
from sandbox_magic.jupyter.options import help_text as options_help
from sandbox_magic.jupyter.status import StatusDisplay, one_line
from sandbox_magic.jupyter.view import CellView
from sandbox_magic.manager import SandboxManager
from sandbox_magic.protocol import STDOUT, Output

if TYPE_CHECKING:
    from sandbox_magic.egress.gate import Access
    from sandbox_magic.jobs import Job
    from sandbox_magic.jupyter.settings import Settings
    from sandbox_magic.left_running import Process
    from sandbox_magic.sandbox import Sandbox

_RED = ("not enforced", "not limited")
SHOWN = 100  # lines of the network's log
LISTED = 20  # paths; a copied folder may hold thousands


@dataclass(frozen=True, slots=True)
class Request:
    """One line of `%sandboxctl`, taken apart.

    Attributes:
        text: Everything behind the verb, as it was typed.
        words: The words behind the verb, without the name.
        name: What `-n` gave; `None` if it was not given.
    """

    verb: str
    text: str
    words: list[str]
    name: str | None

    def counted(self, least: int, most: int) -> list[str]:
        """Return the words if their number is right, else raise `InvalidOptions` with the usage."""
        if not least <= len(self.words) <= most:
            raise InvalidOptions(f"write: %sandboxctl {VERBS[self.verb].usage}")
        return self.words


class Control:
    """Carry out the verbs for one shell.

    Args:
        shell: The IPython shell, for the status line.
        manager: Who holds the sandboxes.
        settings: The settings of the magics.
    """

    def __init__(self, shell: object, manager: SandboxManager, settings: Settings) -> None:
        self.shell = shell
        self.manager = manager
        self.settings = settings

    def run(self, line: str) -> None:
        """Carry out one line.

        Raises:
            InvalidOptions: There is no such verb, or its words are wrong.
        """
        verb, _, text = line.strip().partition(" ")
        if verb in {"", "help", "-h", "--help"}:
            _say(help_text())
            return
        if verb not in VERBS:
            near = [known for known in VERBS if known.startswith(verb)] or difflib.get_close_matches(verb, VERBS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(VERBS)}"
            raise InvalidOptions(f"unknown verb {one_line(verb, 40)!r}: {hint}")
        if verb == "start":  # its options are those of a cell
            VERBS[verb].run(self, Request(verb, text, [], None))
            return
        words, name = _words(text)
        VERBS[verb].run(self, Request(verb, text, words, name))

    def status(self, request: Request) -> None:
        """Show what was read from the engine and from inside."""
        request.counted(0, 0)
        names = [request.name] if request.name else self.manager.names()
        if not names:
            _say("no sandbox yet: the first %%sandbox cell starts one")
        for name in names:
            sandbox = self.manager.find(name)
            _say(f"{name}: {'started' if sandbox.started else 'not started'}")
            if sandbox.started:
                _say("\n".join(_status_lines(sandbox.status())))

    def start(self, request: Request) -> None:
        """Start a sandbox before its first cell needs it."""
        options = parse_cell(request.text)
        if options.help:
            _say(f"write: %sandboxctl {VERBS['start'].usage}\n\n{options_help()}")
            return
        shaping = CellOptions(name=options.name, quiet=options.quiet, **options.wish())  # type: ignore[arg-type] # its own fields
        if options != shaping:
            raise InvalidOptions("%sandboxctl start takes only options that shape the sandbox; the others are a cell's")
        with self._status(quiet=options.quiet) as status:
            defaults = self.settings.spec_defaults()
            sandbox = self.manager.get(options.name, options.wish(), defaults, on_progress=status.update)
            did = "runs already" if sandbox.started else "has started"
            sandbox.start()
        if not options.quiet:
            _say(f"sandbox {options.name} {did}")

    def stop(self, request: Request) -> None:
        """Close one sandbox, or all."""
        words = request.counted(0, 1)
        if words not in ([], ["--all"]) or (words and request.name):
            raise InvalidOptions(f"write: %sandboxctl {VERBS['stop'].usage}")
        names = self.manager.names() if words else [request.name or "default"]
        for name in names:
            self.manager.close(name)
            _say(f"sandbox {name} is closed")
        if not names:
            _say("there is no sandbox")

    def reset(self, request: Request) -> None:
        """Give a sandbox a fresh start."""
        request.counted(0, 0)
        with self._status() as status:
            self.manager.reset(request.name or "default", on_progress=status.update)
        _say(f"sandbox {request.name or 'default'} is a fresh one; its files and state are gone")

    def put(self, request: Request) -> None:
        """Copy a host file or folder into the sandbox."""
        source, *rest = request.counted(1, 2)
        with self._ready(request) as sandbox:
            target = rest[0] if rest else sandbox.spec.cwd.rstrip("/") + "/"
            sandbox.put(Path(source).expanduser(), target)
        _say(f"copied {one_line(source)} to {one_line(target)} in the sandbox")

    def get(self, request: Request) -> None:
        """Copy a file or folder out of the sandbox."""
        source, *rest = request.counted(1, 2)
        sandbox = self.manager.find(request.name or "default")
        paths = sandbox.get(source, os.path.expanduser(rest[0] if rest else "."))  # noqa: PTH111 # a Path drops a slash
        for path in paths[:LISTED]:
            _say(f"copied to {one_line(str(path))}")
        if len(paths) > LISTED:
            _say(f"and {len(paths) - LISTED} more")

    def jobs(self, request: Request) -> None:
        """List the background cells and what other cells have left running, or stop a background cell."""
        if request.words[:1] == ["stop"]:
            _, name = request.counted(2, 2)
            job = self._job(name, request)
            job.stop()
            _say(f"job {name}: {job.state}")
            return
        request.counted(0, 0)
        rows = []
        for name in [request.name] if request.name else self.manager.names():
            jobs = self.manager.find(name).jobs
            rows += [(name, job.name, job.state, one_line(job.code, 60), "--bg") for job in jobs.all()]
            rows += [
                (name, str(left.pid), f"for {left.seconds:.0f} s", one_line(left.command, 60), _origin(left))
                for left in jobs.processes()
            ]
        _say(table(rows) if rows else "no jobs: %%sandbox --bg starts one, and so does & in a cell")

    def logs(self, request: Request) -> None:
        """Show what a background cell has printed so far, or, later than its cell, what that has left running."""
        (name,) = request.counted(1, 1)
        left = self._left(name, request)
        if left is None:
            text, where = self._job(name, request).output, f"{name}.output, if --proc {name} was asked for"
        else:
            text, where = left.output, "only the end is kept"
            said = LATE_OF.format(one_line(left.cell)) if left.cell else LATE
            _say(said if text else f"nothing of it is known: {_origin(left)}, and what that printed is shown there")
        view = CellView(where=where)
        view.show(Output(STDOUT, text.encode()))
        view.finish()

    def _job(self, name: str, request: Request) -> Job:
        if self._left(name, request) is not None:
            raise InvalidOptions(f"{name} is no background cell, but a process: `kill {name}` in a cell ends it")
        return self.manager.find(request.name or "default").jobs.find(name)

    def _left(self, name: str, request: Request) -> Process | None:
        """Return what a cell has left running, by its number, unless a background cell has that for its name."""
        jobs = self.manager.find(request.name or "default").jobs
        if not name.isdigit() or name in {job.name for job in jobs.all()}:
            return None
        return next((left for left in jobs.processes() if str(left.pid) == name), None)

    def network(self, request: Request) -> None:
        """Put the whole sandbox online or offline, steer what it reaches by name, or show what it wanted to reach."""
        match request.words:
            case []:
                sandbox = self.manager.find(request.name or "default")
            case ["on"] | ["off"]:
                with self._ready(request) as sandbox:
                    sandbox.network(request.words == ["on"])
            case ["allow", *names] if names:
                with self._ready(request) as sandbox:
                    sandbox.allow(*_listed(names))
            case ["deny", *names] if names:
                with self._ready(request) as sandbox:
                    sandbox.deny(*_listed(names))
            case ["log"]:
                _say(network_table(self.manager.find(request.name or "default").network_log))
                return
            case _:
                raise InvalidOptions(f"write: %sandboxctl {VERBS['network'].usage}")
        _say(f"sandbox {request.name or 'default'} {_reach(sandbox)}")

    def gc(self, request: Request) -> None:
        """Remove what dead kernels left behind; say what was removed, what left, and why."""
        from sandbox_magic import engines  # noqa: PLC0415 # heavy, and only here

        request.counted(0, 0)
        for line in engines.sweep_report():
            _say(one_line(line, 300))

    def doctor(self, request: Request) -> None:
        """Tell what works here, how well, and what to mend."""
        from sandbox_magic.doctor import examine  # noqa: PLC0415 # heavy, and only here

        if request.words not in ([], ["--quick"]):
            raise InvalidOptions(f"write: %sandboxctl {VERBS['doctor'].usage}")
        with self._status() as status:
            status.update("trying the engines")
            report = examine(quick=bool(request.words))
            status.update("")
        for line in report.lines():
            _say(line)

    def config(self, request: Request) -> None:
        """Show each setting, its value and where it came from."""
        request.counted(0, 0)
        _say(table((name, repr(value), origin) for name, value, origin in self.settings.origins()))

    @contextlib.contextmanager
    def _status(self, *, quiet: bool = False) -> Iterator[StatusDisplay]:
        status = StatusDisplay(self.shell, quiet=quiet or self.settings.quiet)
        try:
            yield status
        finally:
            status.finish()

    @contextlib.contextmanager
    def _ready(self, request: Request) -> Iterator[Sandbox]:
        """Give the sandbox, made if need be; it starts at its first use."""
        with self._status() as status:
            yield self.manager.get(
                request.name or "default", {}, self.settings.spec_defaults(), on_progress=status.update
            )


@dataclass(frozen=True, slots=True)
class Verb:
    """How a verb is written, what it does, and who does it."""

    usage: str
    summary: str
    run: Callable[[Control, Request], None]


VERBS: Mapping[str, Verb] = {
    "status": Verb("status [-n NAME]", "what runs, read from the engine and from inside", Control.status),
    "start": Verb("start [-n NAME] [OPTIONS]", "start one before its first cell; options as %%sandbox", Control.start),
    "stop": Verb("stop [-n NAME | --all]", "close it; its files are lost", Control.stop),
    "reset": Verb("reset [-n NAME]", "a fresh sandbox under the same name", Control.reset),
    "put": Verb("put SRC [DST] [-n NAME]", "copy a host file or folder into it", Control.put),
    "get": Verb("get SRC [DST] [-n NAME]", "copy a file or folder out of it", Control.get),
    "network": Verb(
        "network [on|off|log|allow|deny] [NAMES] [-n NAME]",
        "online, offline or by name until told otherwise; log: what it asked for; alone: how it is now",
        Control.network,
    ),
    "jobs": Verb(
        "jobs [stop JOB] [-n NAME]",
        "list the background cells (--bg) and what cells have left running (&), or stop a background cell",
        Control.jobs,
    ),
    "logs": Verb(
        "logs JOB|PID [-n NAME]", "what a background cell or what a cell has left running has printed", Control.logs
    ),
    "gc": Verb("gc", "remove what dead kernels left behind", Control.gc),
    "doctor": Verb("doctor [--quick]", "which engines work here, which limits they keep, what to mend", Control.doctor),
    "config": Verb("config", "the settings and where each came from", Control.config),
}


def help_text() -> str:
    """Return the list of verbs."""
    return table((f"%sandboxctl {verb.usage}", verb.summary) for verb in VERBS.values())


def table(rows: Iterable[tuple[str, ...]]) -> str:
    """Return rows of text in aligned columns; nothing in them can leave its line."""
    clean = [[" " * (len(cell) - len(cell.lstrip(" "))) + one_line(cell, 400) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*clean, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in clean)
    return "\n".join(line.rstrip() for line in lines)


def _status_lines(facts: Mapping[str, object]) -> Iterator[str]:
    """Yield the facts as aligned lines; what is not as it should be is red."""
    lines = table((f"  {key}", _text(value)) for key, value in facts.items()).split("\n")
    for key, line in zip(facts, lines, strict=True):
        yield f"\x1b[31m{line}\x1b[0m" if key in _RED else line


def network_table(log: Iterable[Access]) -> str:
    """Return what a sandbox wanted to reach by name, a line each, the latest last."""
    rows = [
        (
            time.strftime("%H:%M:%S", time.localtime(access.time)),
            "allowed" if access.allowed else "refused",
            f"{access.name}:{access.port}" if access.port else access.name,
            access.address or "-",
            f"{access.sent} out",
            f"{access.received} in",
            access.reason,
        )
        for access in log
    ]
    return table(rows[-SHOWN:]) if rows else "nothing yet: no program in it has asked for a name"


OFFLINE = "is offline (--network is for one cell, %sandboxctl network allow NAMES until told otherwise)"


def _reach(sandbox: Sandbox) -> str:
    """Say what a sandbox may reach."""
    if sandbox.online:
        return "is online, until %sandboxctl network off"
    names = _text(sandbox.status().get("may reach", ()))
    return f"is offline, and reaches by name: {names}" if names else OFFLINE


def _origin(left: Process) -> str:
    """Say where a process comes from."""
    return f"left by: {one_line(left.cell, 60)}" if left.cell else "left by an earlier cell"


def _listed(words: Iterable[str]) -> list[str]:
    """Return names that were written with spaces, commas or both between them."""
    return [name for word in words for name in word.split(",") if name]


def _text(value: object) -> str:
    match value:
        case dict():
            return ", ".join(f"{key}={_text(part)}" for key, part in value.items())
        case list() | tuple() | set() | frozenset():
            return ", ".join(map(_text, value))
        case None:
            return "unknown"
        case bool():
            return "yes" if value else "no"
    return str(value)


def _words(text: str) -> tuple[list[str], str | None]:
    """Split like a shell and take out `-n NAME`, wherever it stands."""
    try:
        given = shlex.split(text)
    except ValueError:
        raise InvalidOptions(f"a quote is not closed in {one_line(text, 60)!r}") from None
    words: list[str] = []
    name: str | None = None
    rest = iter(given)
    for word in rest:
        if word in {"-n", "--name"}:
            name = next(rest, "")
        elif word.startswith("--name="):
            name = word.removeprefix("--name=")
        else:
            words.append(word)
    if name == "":
        raise InvalidOptions("-n needs the name of a sandbox")
    return words, name


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
