"""What cells can have done to the shell, judged by their text; and when a shell is given up."""

from __future__ import annotations

import pytest

from sandbox_magic.running import Run
from sandbox_magic.shell.caution import Caution


def look(text: str) -> Caution:
    caution = Caution()
    caution.look(text.encode() + b"\n")
    return caution


@pytest.mark.parametrize(
    "text",
    [
        'e"xec" >f',
        "ex\\ec >f",
        "ex\\\nec >f",
        "$x -x",
        "`cat f` a",
        "e* 3",
        "A=1 $x",
        "2>&1 $x",
        "f( ) { :; }",
        ".\tf",
        "if $x; then :; fi",
        "case a in a) $x;; esac",
        "command $x",
        "{ $x; }",
        "declare -r PS1",
        "[ a = b ] && ${x}ap",
    ],
)
def test_what_may_change_the_shell_is_seen(text: str) -> None:
    assert look(text).wary


@pytest.mark.parametrize(
    "text",
    [
        "true",
        "echo $x",
        "[ -f x ] && echo y",
        "x=$(cat f)",
        "ls *.txt",
        "find . -name '*.py'",
        "cp a b .",
        "command -v ls",
        "for i in 1 2; do echo $i; done",
        "cat <<E\nhello\nE",
        "pip install numpy",
    ],
)
def test_ordinary_cells_have_short_lines(text: str) -> None:
    assert not look(text).wary


def test_limits_are_seen() -> None:
    assert look("ulimit -f 0").frail
    assert look("ulimit -S 100").frail
    assert not look("ulimit -n 100").frail


def test_a_shell_that_twice_waits_for_more_is_given_up() -> None:
    run = Run.__new__(Run)
    run.deaf, run.idle = False, None
    for heard, idle, deaf in (
        (100, True, False),
        (120, True, False),
        (120, False, False),
        (120, True, False),
        (120, True, True),
    ):
        run.looks(heard, idle=idle)
        assert run.deaf is deaf
