"""What a session promises, whatever the engine and the shell."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from contextlib import suppress
from typing import Any

import pytest

from sandbox_magic import (
    CommandFailed,
    CommandTimeout,
    InvalidOptions,
    Output,
    Sandbox,
    SessionBusy,
    SessionClosed,
)
from sandbox_magic.testing.host import until


def later(seconds: float, action: object) -> threading.Thread:
    thread = threading.Timer(seconds, action)  # type: ignore[arg-type]
    thread.start()
    return thread


def test_output_streams_while_the_command_runs(shared: Sandbox) -> None:
    seen: list[tuple[float, bytes]] = []
    begun = time.monotonic()
    shared.run(
        "echo first; sleep 0.5; echo second", on_output=lambda out: seen.append((time.monotonic() - begun, out.data))
    )
    assert b"".join(data for _, data in seen) == b"first\nsecond\n"
    assert seen[0][0] < 0.4 < seen[-1][0]


def test_streams_apart_and_together(shared: Sandbox) -> None:
    result = shared.run("echo out; sleep 0.05; echo err >&2; sleep 0.05; echo out")
    assert (result.stdout, result.stderr, result.output) == ("out\nout\n", "err\n", "out\nerr\nout\n")


def test_check_and_failed(shared: Sandbox) -> None:
    with pytest.raises(CommandFailed, match="exit status 127") as caught:
        shared.run("no-such-command", check=True)
    assert caught.value.returncode == 127
    assert "not found" in caught.value.stderr
    assert shared.last is caught.value.result


@pytest.mark.parametrize("code", range(0, 256, 51))
def test_exit_codes_are_exact(shared: Sandbox, code: int) -> None:
    assert shared.run(f"(exit {code})").exit_code == code


def test_signals_have_names(shared: Sandbox) -> None:
    assert shared.run("sh -c 'kill -9 $$'").signal == "SIGKILL"
    assert shared.run("sh -c 'kill -TERM $$'").signal == "SIGTERM"
    assert shared.run("true").signal is None


def test_20_mb_of_random_bytes_survive(shared: Sandbox) -> None:
    result = shared.run(
        "head -c 20000000 /dev/urandom >/tmp/random; md5sum </tmp/random >&2; cat /tmp/random; rm /tmp/random"
    )
    assert result.stderr.split()[0] == hashlib.md5(result.stdout_bytes).hexdigest()
    assert len(result.stdout_bytes) == 20_000_000


def test_what_is_not_kept_is_said(shared: Sandbox) -> None:
    result = shared.run("head -c 70000000 /dev/zero")
    assert result.truncated
    assert len(result.stdout_bytes) == 64 << 20


@pytest.mark.parametrize("word", ["-x", "--", "-", "-e"])
def test_a_cell_may_begin_with_what_looks_like_an_option(shared: Sandbox, word: str) -> None:
    result = shared.run(f"{word}\necho hi")
    assert (result.exit_code, result.stdout, shared.run("echo $-").exit_code) == (0, "hi\n", 0)
    assert "x" not in shared.run("echo $-").stdout


def test_stdin(shared: Sandbox) -> None:
    assert shared.run("cat", stdin="text\n").stdout == "text\n"
    assert shared._session is not None
    assert shared._session.run("cat", stdin="text\n").stdout == "text\n", "the session's own way in"
    data = os.urandom(1_000_000)
    assert shared.run("cat", stdin=data).stdout_bytes == data
    assert shared.run("cat").stdout == ""


def test_env_and_cwd_stay(box: Sandbox) -> None:
    assert box.run("echo $GREETING; pwd", env={"GREETING": "a 'quoted' \"one\" $x"}, cwd="/tmp").stdout == (
        "a 'quoted' \"one\" $x\n/tmp\n"
    )
    assert box.run("sh -c 'echo $GREETING'; pwd").stdout == "a 'quoted' \"one\" $x\n/tmp\n"
    with pytest.raises(InvalidOptions, match="cwd"):
        box.run("echo never", cwd="/no/such/folder")
    with pytest.raises(InvalidOptions, match="variable"):
        box.run("echo never", env={"1x": "y"})
    assert box.run("echo still").stdout == "still\n"


def test_a_shell_that_is_not_there_is_said(wish: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptions, match="no such shell"), Sandbox(**wish | {"shell": "no-such-shell"}) as box:
        box.run("echo never")


def test_preparing_leaves_the_last_exit_code(box: Sandbox) -> None:
    box.run("(exit 7)")
    assert box.run("echo $?", env={"X": "1"}).stdout == "7\n"


@pytest.mark.parametrize(
    ("end", "code"),
    [("exit 3", 3), ("exec sh -c 'exit 4'", 4), ("set -e; false", 1), ("kill -9 $$", 137), ("exit", 0)],
)
def test_the_shell_comes_back_with_cwd_and_exports(wish: dict[str, Any], end: str, code: int) -> None:
    with Sandbox(**wish, restore=False) as box:
        box.run("cd /tmp; export KEPT='a b'; lost=1")
        time.sleep(0.3)  # a checkpoint would be there by now
        result = box.run(end)
        assert (result.exit_code, result.shell_ended) == (code, True)
        assert "new one" in result.notes[0]
        after = box.run("echo $? $KEPT:$lost; pwd")
        assert (after.stdout, after.notes) == (f"{code} a b:\n/tmp\n", ())


def test_the_first_cell_ends_the_shell(wish: dict[str, Any]) -> None:
    with Sandbox(**wish) as box:
        assert box.run("exit 3").exit_code == 3
        after = box.run("echo $?; pwd")
        assert (after.stdout, after.notes) == (f"3\n{box.spec.cwd}\n", ())


def test_a_new_shell_is_as_the_old_one_was(box: Sandbox, bash: bool, kind: str) -> None:
    """Also if the shell ends right behind the cell that has set all this."""
    box.run("text=\"it's\nok\"; alias hi='echo hi'; umask 027; cd /tmp; set -u")
    if bash:
        box.run("a=(1 '2 3'); declare -A m=([k]='v w'); f() { echo \"in f $1\"; }; shopt -s extglob; set -o pipefail")
    if kind == "zsh":
        box.run("a=(1 '2 3'); typeset -A m=(k 'v w'); f() { echo \"in f $1\" }; setopt nullglob")
        box.run("alias -g UP='| tr a-z A-Z'")
    ended = box.run("kill -9 $$")
    assert "variables" in ended.notes[0]
    assert "jobs, traps" in ended.notes[0]
    after = box.run('echo $?; hi; echo "$text"; umask -S; pwd; case $- in *u*) echo u;; esac')
    assert after.stdout == "137\nhi\nit's\nok\nu=rwx,g=rx,o=\n/tmp\nu\n"
    assert after.notes == ()
    if bash:
        after = box.run(
            'echo "${a[1]}" "${m[k]}"; f 1; shopt -q extglob && [[ -o pipefail ]] && echo on; type -t declare'
        )
        assert after.stdout == "2 3 v w\nin f 1\non\nbuiltin\n"
    if kind == "zsh":
        after = box.run('echo "$a[2]" "$m[k]" UP; f 1; echo /none*; whence -w set')
        assert after.stdout == "2 3 V W\nin f 1\n\nset: builtin\n"


def test_a_damaged_checkpoint_is_said(box: Sandbox) -> None:
    box.run("text=1; export KEPT=1")
    ended = box.run("echo 'broken=(' >/proc/$PPID/cwd/checkpoint; kill -9 $$")
    after = box.run("echo $KEPT")
    assert after.stdout == "1\n"
    assert any("no checkpoint was readable" in note for note in (*ended.notes, *after.notes))


def test_everything_killed_at_once(box: Sandbox) -> None:
    """Also the supervisor and the control shell: the keeper has another user id."""
    box.run("cd /tmp; export KEPT=yes; echo file >/tmp/file")
    first = box.run("kill -9 -1; sleep 5")
    after = box.run("echo $KEPT; pwd; cat /tmp/file")
    assert after.stdout == "yes\n/tmp\nfile\n"
    assert any("new one" in note for note in (*first.notes, *after.notes))


def test_a_shell_that_ends_between_cells_is_replaced_and_it_is_said(box: Sandbox) -> None:
    box.run("export KEPT=1; (sleep 0.2; kill -9 $$) &")
    time.sleep(0.6)
    result = box.run("echo $KEPT")
    assert result.stdout == "1\n"
    assert "had ended since the last cell" in result.notes[0]


def test_timeout_keeps_state_and_partial_output(box: Sandbox) -> None:
    box.run("kept=1")
    with pytest.raises(CommandTimeout, match=r"0\.4 s") as caught:
        box.run("echo before; sleep 60; echo never", timeout=0.4)
    assert caught.value.result.stdout == "before\n"
    assert caught.value.result.stopped_by == "SIGINT"
    assert box.run("echo $kept").stdout == "1\n"


def test_interrupt_from_another_thread(box: Sandbox) -> None:
    box.run("kept=1; sleep 100 & echo $! >/tmp/pid")
    timer = later(0.3, box.interrupt)
    begun = time.monotonic()
    result = box.run("sleep 60; echo never")
    timer.join()
    assert result.interrupted
    assert result.stdout == ""
    assert time.monotonic() - begun < 10
    assert box.run("echo $kept; kill -0 $(cat /tmp/pid) && echo job").stdout == "1\njob\n"


def test_the_ladder_reaches_what_ignores_signals(box: Sandbox) -> None:
    box.run("kept=1")
    with pytest.raises(CommandTimeout) as caught:
        box.run("sh -c 'trap \"\" INT TERM; while :; do sleep 0.1; done'", timeout=0.3)
    assert caught.value.result.stopped_by == "SIGKILL"
    assert box.run("echo $kept").stdout == "1\n"


def test_a_shell_that_ignores_signals_is_replaced(box: Sandbox) -> None:
    box.run("cd /tmp")
    with pytest.raises(CommandTimeout) as caught:
        box.run("trap '' INT TERM; while :; do :; done", timeout=0.3)
    assert caught.value.result.stopped_by == "new shell"
    assert caught.value.result.shell_ended
    assert box.run("pwd").stdout == "/tmp\n"


def test_a_fork_bomb_is_stopped(wish: dict[str, Any]) -> None:
    with Sandbox(**wish, pids=64) as box:
        box.run("kept=1")
        with suppress(CommandTimeout):  # a shell that cannot fork may also give up by itself
            box.run("bomb() { bomb | bomb & }; bomb; sleep 60", timeout=1)
        assert box.run("echo usable", timeout=30).stdout == "usable\n"


def test_one_at_a_time(box: Sandbox) -> None:
    thread = threading.Thread(target=box.run, args=("sleep 1",))
    thread.start()
    time.sleep(0.3)
    with pytest.raises(SessionBusy):
        box.run("echo no")
    thread.join()
    assert box.run("echo yes").stdout == "yes\n"


def test_a_failing_callback_stops_the_command_and_is_raised(box: Sandbox) -> None:
    def fail(output: Output) -> None:
        raise ZeroDivisionError

    begun = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        box.run("echo x; sleep 60", on_output=fail)
    assert time.monotonic() - begun < 5
    assert box.run("echo fine").stdout == "fine\n"


def test_close_during_a_run(box: Sandbox) -> None:
    timer = later(0.3, box.close)
    with pytest.raises(SessionClosed):
        box.run("sleep 60")
    timer.join()
    with pytest.raises(SessionClosed):
        box.run("echo no")
    box.close()


@pytest.mark.parametrize(
    "spoil",
    [
        "rm -rf /tmp/* /tmp/.[!.]* /dev/shm/* /dev/shm/.[!.]* 2>/dev/null",
        "ulimit -f 0",
        "ulimit -n 3",
        "set -e -u -x -v; set -o noglob",
        "unset PATH HOME PWD; IFS=x",
        "builtin() { :; }; command() { :; }; printf() { :; }; kill() { :; }; trap() { :; }",
        "readonly __",
        "alias printf=false command=false builtin=false unset=false 2>/dev/null",
        "exec >/dev/null 2>&1 </dev/null",
        "PS1='prompt> '; PS2='more> '",
    ],
)
def test_nothing_a_cell_does_wedges_the_next(box: Sandbox, spoil: str) -> None:
    box.run(spoil, timeout=10)
    for _ in range(3):
        result = box.run("exit 0", timeout=10)  # a shell whose stdout is gone comes back with the next one
    result = box.run("echo usable", timeout=10)
    assert result.stdout == "usable\n"
    assert box.late_output() == []


@pytest.mark.parametrize("stream", [">&2", ">/dev/null"])
def test_a_cell_that_kills_its_shell_and_our_helper_ends_although_a_job_holds_the_streams(
    box: Sandbox, stream: str
) -> None:
    result = box.run(f"echo out; sleep 1000 {stream} & kill -9 $PPID; kill -9 $$", timeout=60)
    assert result.shell_ended and not result.timed_out
    assert result.exit_code in {137, None}
    assert box.run("echo next").stdout == "next\n"


def test_the_shell_of_a_job_is_gone_with_it(box: Sandbox) -> None:
    """Also if it had ended, and a new one would be on its way when our end is closed."""
    count = "set -- /proc/[0-9]*; echo $#"
    box.start_job("true").wait(60)  # by now the control shell is there
    before = int(box.run(count).stdout)
    for code in ("exit 3", "true", "kill -9 $$"):
        box.start_job(code).wait(60)
    until("shells of jobs are left", lambda: int(box.run(count).stdout) <= before)
