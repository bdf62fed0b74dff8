"""What cells can have done to the shell, judged by their text."""

from __future__ import annotations

import pytest

from sandbox_magic.shell.caution import Caution


def after(*cells: str) -> Caution:
    caution = Caution(saved=True)
    for cell in cells:
        caution.look(cell.encode() + b"\n")
    return caution


@pytest.mark.parametrize(
    "cell",
    ["set -x", "trap : INT", "exec >f", "f() { :; }", "function f { :; }", ". ./file", "eval x", "alias x=y", "kill 1"],
)
def test_a_cell_that_may_change_the_shell_makes_wary_for_good(cell: str) -> None:
    assert not after("true").wary
    assert after(cell).wary
    assert after(cell, "true").wary
    assert after(cell, "true").keeps


def test_only_what_may_end_the_shell_later_is_perilous() -> None:
    assert after("kill 1", "true").perilous
    assert not after("set -x").perilous


@pytest.mark.parametrize(
    "cell", ["true", "ls -l /tmp | wc -l >/dev/null", "apt-get install -y wget; gm version", "a &"]
)
def test_plain_words_change_neither_exports_nor_directory(cell: str) -> None:
    assert not after(cell).keeps


@pytest.mark.parametrize(
    "cell",
    [
        "cd /",
        "A=1",
        "true\ncd",
        "export A",
        "read A",
        "c'd' /",
        'c"d" /',
        "c\\d /",
        "$x /",
        "`x`",
        "for A in 1; do :; done",
        "pushd .",
    ],
)
def test_anything_else_may(cell: str) -> None:
    assert after(cell).keeps


def test_the_first_cell_saves() -> None:
    caution = Caution()
    caution.look(b"true\n")
    assert caution.keeps


@pytest.mark.parametrize("cell", ["true", "ls -l /tmp >/dev/null", 'echo "$x" | grep -c "a b"', "cat <a; false"])
def test_most_cells_leave_nothing_that_a_new_shell_would_miss(cell: str) -> None:
    assert not after(cell).changes


@pytest.mark.parametrize(
    "cell",
    ["x=1", "read x", "umask 027", "set -u", "f() { :; }", "alias a=b", "echo $((x++))", "for x in 1; do :; done"],
)
def test_others_may_leave_something(cell: str) -> None:
    assert after(cell).changes


@pytest.mark.parametrize("cell", ["f() { x=1; }", "alias f='x=1'", ". ./file", 'eval "$text"'])
def test_once_there_are_functions_any_cell_may(cell: str) -> None:
    assert after(cell, "f").changes


@pytest.mark.parametrize("cell", ["true", "", "cd /tmp && pwd", "echo $x >f; x=1\n\n  : ", 'export A="b c" || false'])
def test_builtins_start_no_process(cell: str) -> None:
    assert after(cell).alone


@pytest.mark.parametrize(
    "cell",
    ["ls", "x=1 ls", "echo $(ls)", "echo `ls`", "echo <(ls)", "true & ", "true | ls", "trueish", "./true", "true\nls"],
)
def test_what_is_no_builtin_may_start_one(cell: str) -> None:
    assert not after(cell).alone


def test_any_word_may_be_a_function_later() -> None:
    assert not after("true() { ls; }", "true").alone
