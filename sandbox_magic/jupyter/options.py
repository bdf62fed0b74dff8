"""The `%%sandbox` line as frozen `CellOptions`. One table makes the parser, the help and the page in the docs."""

from __future__ import annotations

import argparse
import difflib
import functools
import io
import keyword
import math
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from sandbox_magic.destinations import Destination, destinations
from sandbox_magic.errors import InvalidOptions
from sandbox_magic.spec import Mount, parse_size

EXAMPLES = """\
  %%sandbox                              run the lines below in the sandbox's shell
  %%sandbox --network                    only this cell may use the network
  %%sandbox --network www.example.org    only this cell may, and only this name
  %%sandbox -o listing --timeout 60      stdout into the variable `listing`, at most 60 s
  %%sandbox -n py --image python:3.12    another sandbox beside the default one
  %sandbox ls -l "my file"               one command; returns its Result
  result = %sandbox --timeout 5 -- make  `--` ends our options"""

SEE_ALSO = "After every cell: _exit_code, _sandbox (the last Result). See also %sandboxctl, %config SandboxMagics."

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_NAMES = re.compile(r"\s*(?!-)\S*[.*]")  # a word with a dot or a star
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class CellOptions:
    """What one `%%sandbox` or `%sandbox` line asks for; `None` and empty mean: not asked.

    Attributes:
        memory: Bytes.
        env: Pairs of a name and its text; `None` instead of a text passes the Python variable of that name.
        timeout: Seconds; infinity lifts a limit that the settings give.
        stdin, out, err, result, proc: Names of Python variables.
        raise_error: `False` if a failing command shall not raise; `None` leaves it to the settings.
    """

    name: str = "default"
    image: str | None = None
    engine: str | None = None
    runtime: str | None = None
    profile: str | None = None
    memory: int | None = None
    cpus: float | None = None
    mounts: tuple[Mount, ...] = ()
    user: str | None = None
    allow_degraded: bool | None = None
    shell: str | None = None
    restore: bool | None = None
    network: bool | tuple[Destination, ...] = False
    env: tuple[tuple[str, str | None], ...] = ()
    cwd: str | None = None
    timeout: float | None = None
    stdin: str | None = None
    out: str | None = None
    err: str | None = None
    tee: bool = False
    result: str | None = None
    interactive: bool = False
    tty: bool = False
    background: bool = False
    proc: str | None = None
    quiet: bool = False
    raise_error: bool | None = None
    help: bool = False

    def wish(self) -> dict[str, object]:
        """Return the asked-for fields of `SandboxSpec`: they count when the sandbox starts."""
        return {field: value for field in _SHAPING if (value := getattr(self, field)) not in (None, ())}


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table.

    Attributes:
        metavar: What stands for its value in the help; empty for a switch.
        dest: The field of `CellOptions`; the last flag's name if empty.
        alias: A flag that works but is not shown.
        maybe: Its value may be left out; after a space it is one only where no command can follow.
    """

    group: str
    flags: tuple[str, ...]
    metavar: str
    help: str
    convert: Callable[[str], object] = str
    many: bool = False
    dest: str = ""
    switch: bool = True
    alias: str = ""
    maybe: bool = False

    @property
    def field(self) -> str:
        """The field of `CellOptions` that it sets."""
        return self.dest or self.flags[-1].lstrip("-").replace("-", "_")


def _sandbox_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise InvalidOptions(f"{text!r} is not a name: letters, digits, `_`, `.` and `-`, at most 63")
    return text


def _variable(text: str) -> str:
    if not text.isidentifier() or keyword.iskeyword(text):
        raise InvalidOptions(f"{text!r} cannot be the name of a Python variable")
    return text


def _environment(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    if not _VARIABLE.fullmatch(name):
        raise InvalidOptions(f"{name!r} cannot be the name of an environment variable: write NAME=text or NAME")
    return name, value if equals else None


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise InvalidOptions(f"{text!r} is not a number") from None
    if not 0 < number < math.inf:
        raise InvalidOptions(f"{text!r} is not a number above 0")
    return number


def _seconds(text: str) -> float:
    return math.inf if text.lower() == "none" else _positive(text)


_SHAPE = "The sandbox (these count when it starts)"
_RUN = "This cell"
_PYTHON = "Python variables"
_SHOW = "What is shown"

OPTIONS = (
    Option(
        _SHAPE, ("-n", "--name"), "NAME", "Which sandbox; each name is a sandbox of its own (default).", _sandbox_name
    ),
    Option(_SHAPE, ("--image",), "IMAGE", "Its image, such as python:3.12-slim."),
    Option(_SHAPE, ("--engine",), "ENGINE", "What runs it: auto, docker, podman or bubblewrap."),
    Option(_SHAPE, ("--runtime",), "RUNTIME", "The engine's runtime, such as runsc (gVisor)."),
    Option(_SHAPE, ("--profile",), "PROFILE", "How closed it is: sealed, standard, open."),
    Option(_SHAPE, ("--memory",), "SIZE", "Memory limit, such as 512m or 2g.", parse_size),
    Option(_SHAPE, ("--cpus",), "N", "How many processors it may use, such as 1.5.", _positive),
    Option(
        _SHAPE,
        ("--mount",),
        "SRC:DST[:rw]",
        "Show a host folder or file inside, read-only unless :rw; repeatable.",
        Mount.parse,
        many=True,
        dest="mounts",
    ),
    Option(_SHAPE, ("--user",), "USER", "The user inside, a name or a number."),
    Option(_SHAPE, ("--shell",), "SHELL", "Its shell, such as zsh; bash where there is one, else sh."),
    Option(_SHAPE, ("--no-restore",), "", "A new shell gets directory and exports only.", dest="restore", switch=False),
    Option(_SHAPE, ("--allow-degraded",), "", "Start it also if a limit does not hold; %sandboxctl status says which."),
    Option(
        _RUN, ("--network",), "NAMES", "Be online for this cell; or reach only these names.", destinations, maybe=True
    ),
    Option(
        _RUN,
        ("-e", "--env"),
        "NAME[=text]",
        "Set an environment variable; a bare NAME passes the Python variable (dict and list as JSON, True and "
        "False as true and false); repeatable.",
        _environment,
        many=True,
    ),
    Option(_RUN, ("--cwd",), "FOLDER", "Run in this folder of the sandbox."),
    Option(_RUN, ("--timeout",), "SECONDS", "Stop it after this time; none lifts the limit of the settings.", _seconds),
    Option(_RUN, ("-i", "--interactive"), "", "Ask here whenever the cell waits for a line of input; ^D ends it."),
    Option(
        _RUN, ("-t", "--tty"), "",
        "Run it on a terminal, in a child of the shell: directory and exports are kept, other variables are not.",
    ),
    Option(
        _RUN, ("--bg",), "",
        "Go on at once; the cell runs beside the shell, in one that begins with its state. --out, --err and --result "
        "are set when it ends.",
        dest="background",
    ),
    Option(
        _PYTHON, ("--stdin",), "NAME",
        "Feed this variable (str, bytes, a file or an iterator of them) to stdin, else it is empty.", _variable,
    ),
    Option(_PYTHON, ("-o", "--out"), "NAME", "Bind stdout to this variable instead of showing it.", _variable),
    Option(_PYTHON, ("--err",), "NAME", "Bind stderr to this variable instead of showing it.", _variable),
    Option(_PYTHON, ("--tee",), "", "With --out or --err: show it as well."),
    Option(_PYTHON, ("--result",), "NAME", "Bind the whole Result to this variable.", _variable),
    Option(_PYTHON, ("--proc",), "NAME", "With --bg: bind the job to this variable; the job's name too.", _variable),
    Option(_SHOW, ("-q", "--quiet"), "", "Show no output and no progress; it is in _sandbox."),
    Option(
        _SHOW, ("--no-raise-error",), "", "Do not raise if the command fails; see _exit_code.",
        dest="raise_error", switch=False, alias="--ignore-errors",
    ),
    Option(_SHOW, ("-h", "--help"), "", "Show this help and run nothing."),
)  # fmt: skip
_SHAPING = sorted({option.field for option in OPTIONS if option.group == _SHAPE} - {"name"})

_BY_FLAG = {flag: option for option in OPTIONS for flag in (*option.flags, option.alias) if flag}


class _Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises our error instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise InvalidOptions(f"{message} (%sandbox -h explains the options)")


def _checked(convert: Callable[[str], object]) -> Callable[[str], object]:
    """Let the parser name the option in front of our sentence; it hides what other errors say."""

    @functools.wraps(convert)
    def call(text: str) -> object:
        try:
            return convert(text)
        except InvalidOptions as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return call


@functools.cache
def _parser() -> _Parser:
    parser = _Parser(
        prog="%%sandbox",
        usage="%%%%sandbox [options]    or    %%sandbox [options] [--] COMMAND",
        description="Examples:\n" + EXAMPLES,
        epilog=SEE_ALSO,
        formatter_class=functools.partial(argparse.RawDescriptionHelpFormatter, max_help_position=26, width=100),
        add_help=False,
        allow_abbrev=False,
    )
    if sys.version_info >= (3, 14):
        parser.color = False  # the help is also stored in notebooks
    groups = {title: parser.add_argument_group(title) for title in dict.fromkeys(row.group for row in OPTIONS)}
    for row in OPTIONS:
        _add(groups[row.group], row.flags, row, row.help.replace("%", "%%"))
        if row.alias:
            _add(groups[row.group], (row.alias,), row, argparse.SUPPRESS)
    return parser


def _add(group: argparse._ArgumentGroup, flags: tuple[str, ...], row: Option, text: str) -> None:
    if not row.metavar:
        group.add_argument(
            *flags, dest=row.field, help=text, action="store_const", const=row.switch, default=argparse.SUPPRESS
        )
        return
    how: dict[str, Any] = {"nargs": "?", "const": True} if row.maybe else {"action": "append" if row.many else "store"}
    group.add_argument(
        *flags,
        dest=row.field,
        metavar=row.metavar,
        help=text,
        type=_checked(row.convert),
        default=argparse.SUPPRESS,
        **how,
    )


def help_text() -> str:
    """Return what `-h` prints: examples first, then the options in groups."""
    return _parser().format_help()


def help_markdown() -> str:
    """Return the options as a Markdown table for the user guide."""
    rows = ["| option | what it does |", "| --- | --- |"]
    for row in OPTIONS:
        value = f"[={row.metavar}]" if row.maybe else f" {row.metavar}" if row.metavar else ""
        flags = ", ".join(f"`{flag}{value}`" for flag in row.flags)
        rows.append(f"| {flags} | {row.help} |")
    return "\n".join(rows) + "\n"


def parse_cell(line: str) -> CellOptions:
    """Return what the first line of a `%%sandbox` cell asks for.

    Raises:
        InvalidOptions: An unknown option, a wrong value, or a word that is no option.
    """
    words, rest = _split(line, command=False)
    options = _options(words)
    if rest and not options.help:
        raise InvalidOptions(
            f"{_short(rest)!r} is not an option: commands go on the lines below %%sandbox; "
            f"for one command write %sandbox {_short(rest)}"
        )
    return options


def parse_line(line: str) -> tuple[CellOptions, str]:
    """Return the options of a `%sandbox` line and its command: the raw rest of the line.

    Raises:
        InvalidOptions: An unknown option, a wrong value, or no command.
    """
    words, rest = _split(line, command=True)
    options = _options(words)
    if not rest and not options.help:
        raise InvalidOptions("no command: write %sandbox COMMAND, or a cell that begins with %%sandbox")
    return options, rest


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _split(line: str, *, command: bool) -> tuple[list[str], str]:
    """Split our options off, as a POSIX shell would; the rest, a `command` or nothing, stays as it was typed."""
    reader = io.StringIO(line)
    lexer = shlex.shlex(reader, posix=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    while True:
        rest = line[reader.tell() :].strip()
        if not rest.startswith("-") or rest == "-" or rest.startswith("- "):
            return words, rest
        word = _next_word(lexer, rest) or ""
        if word == "--":
            return words, line[reader.tell() :].strip()
        words.append(word)
        names = word == "--network" and not command and _NAMES.match(line[reader.tell() :])
        if (names or _needs_value(word)) and (value := _next_word(lexer, rest)) is not None:
            words.append(value)


def _next_word(lexer: shlex.shlex, rest: str) -> str | None:
    try:
        return lexer.get_token()
    except ValueError:
        raise InvalidOptions(f"a quote is not closed in {_short(rest)!r}") from None


def _needs_value(word: str) -> bool:
    """Say whether the next word belongs to this option."""
    if word.startswith("--"):
        flag, equals, _ = word.partition("=")
        option = _known(flag)
        return bool(option.metavar) and not option.maybe and not equals
    for position, letter in enumerate(word[1:], start=2):  # switches may be joined: -qn NAME
        if _known(f"-{letter}").metavar:
            return position == len(word)
    return False


def _known(flag: str) -> Option:
    try:
        return _BY_FLAG[flag]
    except KeyError:
        shown = [flag for row in OPTIONS for flag in row.flags]
        near = difflib.get_close_matches(flag, shown, n=1, cutoff=0.7) if len(flag) > 2 else []
        hint = f"did you mean {near[0]}?" if near else "`--` ends our options"
        raise InvalidOptions(f"unknown option {_short(flag)}: {hint} (%sandbox -h lists them)") from None


def _options(words: list[str]) -> CellOptions:
    given: dict[str, Any] = vars(_parser().parse_args(words))
    repeated: dict[str, Any] = {field: tuple(value) for field, value in given.items() if isinstance(value, list)}
    options = CellOptions(**(given | repeated))
    if options.tee and not (options.out or options.err):
        raise InvalidOptions("--tee needs --out or --err: without them everything is shown anyway")
    if options.proc and not options.background:
        raise InvalidOptions("--proc needs --bg: other cells have ended when the next one begins")
    if options.background and (options.network or options.tee or options.tty):
        raise InvalidOptions(
            "--bg cannot have --tee or --tty, nor --network for itself: %sandboxctl network on|allow is for all cells"
        )
    if options.interactive and (options.background or options.stdin):
        raise InvalidOptions("--interactive cannot have --bg or --stdin: either you are asked, or not")
    targets = [name for name in (options.out, options.err, options.result, options.proc) if name]
    if len(set(targets)) < len(targets):
        raise InvalidOptions("--out, --err, --result and --proc need different variables")
    return options
