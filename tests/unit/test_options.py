"""The first line of a cell: what it means, and what each mistake says."""

from __future__ import annotations

import dataclasses
import enum
import math
from pathlib import Path

import pytest

from sandbox_magic.destinations import Destination
from sandbox_magic.errors import InvalidOptions
from sandbox_magic.jupyter.options import OPTIONS, CellOptions, help_markdown, help_text, parse_cell, parse_line
from sandbox_magic.jupyter.variables import environment, stdin
from sandbox_magic.spec import Mount

DESTINATIONS = (Destination("a.example"), Destination("*.b.example", 8443))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", {}),
        ("   ", {}),
        ("-n box", {"name": "box"}),
        ("--name=box", {"name": "box"}),
        ("-nbox", {"name": "box"}),
        ("--image 'python:3.12-slim'", {"image": "python:3.12-slim"}),
        ("--engine bubblewrap --profile sealed", {"engine": "bubblewrap", "profile": "sealed"}),
        ("--network", {"network": True}),
        ("--network=mirror", {"network": (Destination("mirror"),)}),
        ("--network a.example,*.b.example:8443 -q", {"network": DESTINATIONS, "quiet": True}),
        ("--memory 512m --cpus 1.5", {"memory": 512 * 1024**2, "cpus": 1.5}),
        ("--user 1000 --cwd '/a b'", {"user": "1000", "cwd": "/a b"}),
        ('-e A=1 --env "B=x y" -e C', {"env": (("A", "1"), ("B", "x y"), ("C", None))}),
        ("-e A=", {"env": (("A", ""),)}),
        ("-e A=b=c#d", {"env": (("A", "b=c#d"),)}),
        ("--env=A=-x", {"env": (("A", "-x"),)}),
        ("--timeout 2.5", {"timeout": 2.5}),
        ("--timeout none", {"timeout": math.inf}),
        ("--stdin data", {"stdin": "data"}),
        ("-o a --err b --tee --result c", {"out": "a", "err": "b", "tee": True, "result": "c"}),
        ("-it", {"interactive": True, "tty": True}),
        ("--bg --proc job", {"background": True, "proc": "job"}),
        ("-q", {"quiet": True}),
        ("-qo x", {"quiet": True, "out": "x"}),
        ("-qox", {"quiet": True, "out": "x"}),
        ("--no-raise-error", {"raise_error": False}),
        ("--ignore-errors", {"raise_error": False}),
        ("-h", {"help": True}),
        ("--help", {"help": True}),
        ("-h whatever follows", {"help": True}),
    ],
)
def test_cell_line(line: str, expected: dict[str, object]) -> None:
    assert parse_cell(line) == dataclasses.replace(CellOptions(), **expected)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--timout 5", "did you mean --timeout?"),
        ("--netwrok", "did you mean --network?"),
        ("--image=x --enginee y", "did you mean --engine?"),
        ("--time 5", "unknown option --time"),  # no abbreviations: they would change meaning with a new option
        ("-x", "unknown option -x"),
        ("-qx", "unknown option -x"),
        ("--timeout", "expected one argument"),
        ("-o", "expected one argument"),
        ("-o --err", "expected one argument"),
        ("--timeout soon", "argument --timeout: 'soon' is not a number"),
        ("--timeout 0", "not a number above 0"),
        ("--timeout -5", "not a number above 0"),
        ("--timeout nan", "not a number above 0"),
        ("--timeout inf", "not a number above 0"),
        ("--cpus 0", "not a number above 0"),
        ("--memory much", "argument --memory"),
        ("--mount nowhere", "argument --mount"),
        ("-o 1x", "'1x' cannot be the name of a Python variable"),
        ("--err class", "'class' cannot be"),
        ("--result a.b", "'a.b' cannot be"),
        ("--stdin ''", "'' cannot be"),
        ("-e 1=2", "'1' cannot be the name of an environment variable"),
        ("-e =x", "'' cannot be"),
        ("-e é=x", "'é' cannot be"),
        ("-n ../x", "is not a name"),
        ("-n ''", "is not a name"),
        (f"-n {'x' * 64}", "is not a name"),
        ("--tee", "--tee needs --out or --err"),
        ("-i --stdin x", "--interactive cannot have"),
        ("--proc job", "--proc needs --bg"),
        ("--bg --network", "--bg cannot have"),
        ("--bg --proc x --out x", "different variables"),
        ("-o x --err x", "different variables"),
        ("-o x --result x", "different variables"),
        ("--network=10.0.0.1", "'10.0.0.1' is not a name"),
        ("-o 'x", "a quote is not closed"),
        ("ls -l", "write %sandbox ls -l"),
        ("--network ls", "'ls' is not an option"),
        ("-- ls", "'ls' is not an option"),
        ("-", "'-' is not an option"),
    ],
)
def test_mistake_in_a_cell_line(line: str, said: str) -> None:
    with pytest.raises(InvalidOptions) as error:
        parse_cell(line)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "options", "command"),
    [
        ("ls", {}, "ls"),
        ("ls -l --network", {}, "ls -l --network"),
        ("--network ls -n 3", {"network": True}, "ls -n 3"),
        ("--network a.example --help", {"network": True}, "a.example --help"),
        ("--network=a.example,*.b.example:8443 ls", {"network": DESTINATIONS}, "ls"),
        ("echo 'a  b'  \"c\"", {}, "echo 'a  b'  \"c\""),
        ("echo don't", {}, "echo don't"),  # our splitting stops before the command: its quotes are the shell's
        (r"--timeout 5 printf 'a\tb'", {"timeout": 5.0}, r"printf 'a\tb'"),
        ("-q -- -weird 'name'", {"quiet": True}, "-weird 'name'"),
        ("-- -- x", {}, "-- x"),
        ("-o 'out' echo  $HOME | wc  -c", {"out": "out"}, "echo  $HOME | wc  -c"),
        ("-e 'A=a b'   echo x", {"env": (("A", "a b"),)}, "echo x"),
        ("-e A='a b' echo", {"env": (("A", "a b"),)}, "echo"),
        ("-  x", {}, "-  x"),
        ("-h", {"help": True}, ""),
        ("echo -h", {}, "echo -h"),
        ("echo ü # é", {}, "echo ü # é"),
    ],
)
def test_command_is_the_raw_rest_of_the_line(line: str, options: dict[str, object], command: str) -> None:
    assert parse_line(line) == (dataclasses.replace(CellOptions(), **options), command)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "no command"),
        ("--network", "no command"),
        ("-q --", "no command"),
        ("-z ls", "`--` ends our options"),
    ],
)
def test_mistake_in_a_command_line(line: str, said: str) -> None:
    with pytest.raises(InvalidOptions, match=said):
        parse_line(line)


def test_mounts_are_repeatable(tmp_path: Path) -> None:
    """A folder's name may hold spaces: the line is split as a shell would."""
    folder = tmp_path / "a b"
    folder.mkdir()
    options = parse_cell(f"--mount '{folder}:/a' --mount {tmp_path}:/b:rw")
    assert options.mounts == (Mount(str(folder), "/a"), Mount(str(tmp_path), "/b", True))
    assert options.wish() == {"mounts": options.mounts}


def test_wish_holds_only_what_was_asked_for() -> None:
    assert parse_cell("--network -o x --cwd /tmp -e A=1").wish() == {}
    assert parse_cell("--shell zsh --no-restore").wish() == {"shell": "zsh", "restore": False}
    assert parse_cell("--image a --memory 1g").wish() == {"image": "a", "memory": 1024**3}


def test_every_option_sets_a_field_and_every_field_has_an_option() -> None:
    assert {row.field for row in OPTIONS} == {field.name for field in dataclasses.fields(CellOptions)}


def test_help_begins_with_examples_and_names_every_option() -> None:
    text = help_text()
    assert text.index("Examples:") < min(text.index(f"\n{row.group}:") for row in OPTIONS)
    for row in OPTIONS:
        assert all(flag in text for flag in row.flags)
    assert "--ignore-errors" not in text
    assert "%%%" not in text and "\x1b" not in text


def test_docs_have_a_row_for_every_option() -> None:
    lines = help_markdown().splitlines()
    assert len(lines) == len(OPTIONS) + 2
    assert "| `-o NAME`, `--out NAME` | Bind stdout to this variable instead of showing it. |" in lines


class Colour(enum.IntEnum):
    RED = 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a b", "a b"),
        ("", ""),
        (7, "7"),
        (True, "true"),
        (False, "false"),
        (1.5, "1.5"),
        (Path("/a b"), "/a b"),
        (Colour.RED, "3"),
        ({"a": [1, None, "é"]}, '{"a": [1, null, "é"]}'),
        ([1, 2], "[1, 2]"),
    ],
)
def test_python_variable_as_environment(value: object, text: str) -> None:
    assert environment(parse_cell("-e NAME"), {"NAME": value}) == {"NAME": text}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "NoneType has no clear text"),
        (b"x", "bytes has no clear text"),
        (object(), "object has no clear text"),
        ({"a": object()}, "cannot be written as JSON"),
        ([math.nan], "cannot be written as JSON"),
        ("a\0b", "NUL"),
        ("\ud800", "not valid Unicode"),
    ],
)
def test_value_without_a_clear_text(value: object, said: str) -> None:
    with pytest.raises(InvalidOptions, match=said):
        environment(parse_cell("-e NAME"), {"NAME": value})


def test_missing_variable_is_never_taken_from_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "host")
    with pytest.raises(InvalidOptions, match=r"no Python variable SECRET_KEY; did you mean SECRET_KEYS\?"):
        environment(parse_cell("-e SECRET_KEY"), {"SECRET_KEYS": "x"})


def test_later_environment_wins_and_text_is_not_looked_up() -> None:
    assert environment(parse_cell("-e A=1 -e B=A -e A=2"), {"A": "variable"}) == {"A": "2", "B": "A"}


@pytest.mark.parametrize(("value", "given"), [("text", "text"), (b"\0\xff", b"\0\xff"), (bytearray(b"x"), b"x")])
def test_stdin_from_a_variable(value: object, given: object) -> None:
    assert stdin(parse_cell("--stdin data"), {"data": value}) == given


def test_stdin_mistakes() -> None:
    assert stdin(parse_cell(""), {}) is None
    with pytest.raises(InvalidOptions, match="needs str, bytes, a file or an iterator of them, not int"):
        stdin(parse_cell("--stdin data"), {"data": 1})
    with pytest.raises(InvalidOptions, match="no Python variable data"):
        stdin(parse_cell("--stdin data"), {})
