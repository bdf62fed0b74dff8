"""What is promised of a cell on a terminal, where the sandbox has `script` of util-linux."""

from __future__ import annotations

import threading

import pytest

from sandbox_magic import CommandTimeout, InvalidOptions, Sandbox


@pytest.fixture(scope="module")
def has(shared: Sandbox) -> bool:
    """Whether this place can make terminals."""
    return "--echo" in shared.run("script --help 2>/dev/null; true").stdout


def test_without_the_program_nothing_is_run(shared: Sandbox, has: bool) -> None:
    if has:
        shared.run("cd /; PATH=/nowhere; kept=1")  # ours is another PATH
        assert shared.run("[ -t 1 ]; echo $? $kept; unset kept; PATH=/usr/bin:/bin").stdout == "1 1\n"
        return
    with pytest.raises(InvalidOptions, match="not run: a terminal needs the program"):
        shared.run("echo never", tty=True)
    assert shared.run("echo still").stdout == "still\n"


def test_it_is_a_terminal_with_a_size_and_colours(shared: Sandbox, has: bool) -> None:
    if not has:
        return
    result = shared.run("[ -t 1 ] && [ -t 2 ] && echo yes; stty size </dev/tty; echo $TERM; echo e >&2", tty=True)
    assert (result.stdout, result.stderr) == ("yes\n24 100\nxterm-256color\ne\n", "")
    assert result.code.startswith("[ -t 1 ]")
    assert shared.run("echo $TERM; ls -a /tmp | grep sandbox-tty").stdout == "dumb\n"


def test_exit_codes_are_exact_on_a_terminal(shared: Sandbox, has: bool, kind: str) -> None:
    if not has:
        return
    for code in ("exit 9", "(exit 9)", "sh -c 'exit 9'"):
        assert shared.run(code, tty=True).exit_code == 9
        assert shared.run("echo $?").stdout == "9\n"
    assert shared.run("kill -9 $$", tty=True).signal == "SIGKILL"
    assert shared.run("echo begun\nif", tty=True).exit_code == (1 if kind == "zsh" else 2)
    assert shared.run("no-such-command", tty=True).exit_code == 127


def test_directory_and_exports_are_kept(box: Sandbox) -> None:
    if "--echo" not in box.run("script --help 2>/dev/null; true").stdout:
        return
    box.run("plain=before; f() { :; }")
    box.run("mkdir -p '/tmp/a b'; cd '/tmp/a b'; export GIVEN=\"x'y\nz\"; plain=after; (exit 3)", tty=True)
    assert box.run('echo "$?|$PWD|$GIVEN|$plain|$TERM"; f').stdout == "3|/tmp/a b|x'y\nz|before|dumb\n"
    assert box.run('echo "$PWD|$GIVEN"', tty=True).stdout == "/tmp/a b|x'y\nz\n"


def test_stdin_is_not_echoed(shared: Sandbox, has: bool) -> None:
    if not has:
        return
    assert shared.run("cat; read x || echo end", tty=True, timeout=30).stdout == "end\n"
    assert shared.run("read a; read b; echo $b $a", stdin="one\ntwo\n", tty=True, timeout=30).stdout == "two one\n"


def test_who_asks_at_a_terminal_without_anybody_there_gets_an_end(shared: Sandbox, has: bool) -> None:
    if not has:
        return
    code = "read x </dev/tty; cat /dev/tty; read y; echo $y; read z </dev/tty; echo end"
    assert shared.run(code, tty=True, timeout=30).stdout == "\nend\n"
    assert shared.run(code, stdin="given\n", tty=True, timeout=30).stdout == "given\nend\n"


def test_a_program_on_a_terminal_is_stopped_by_sigint(box: Sandbox) -> None:
    if "--echo" not in box.run("script --help 2>/dev/null; true").stdout:
        return
    box.run("kept=alive")
    with pytest.raises(CommandTimeout) as caught:
        box.run("echo on; sleep 5001; echo off", tty=True, timeout=1)
    assert caught.value.result.stopped_by == "SIGINT"
    assert caught.value.result.stdout.replace("^C", "").strip() == "on"
    threading.Timer(1, box.interrupt).start()
    result = box.run("trap 'echo caught; exit 4' INT; echo on; while :; do sleep 0.1; done", tty=True)
    assert result.stdout == "on\ncaught\n"
    assert box.run("echo $kept").stdout == "alive\n"


def test_what_is_not_shown_is_asked_for_as_a_secret(shared: Sandbox, has: bool) -> None:
    if not has:
        return
    asked: list[str] = []

    def ask(kind: str) -> str:
        asked.append(kind)
        return kind

    code = "stty -echo; printf 'word: '; read a; stty echo; echo; printf 'name: '; read b; echo $a $b"
    result = shared.run(code, tty=True, timeout=30, ask=lambda: ask("plain"), ask_secret=lambda: ask("secret"))
    assert (asked, result.stdout) == (["secret", "plain"], "word: \nname: secret plain\n")
