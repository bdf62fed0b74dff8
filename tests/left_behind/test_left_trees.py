"""What a bubblewrap sandbox leaves when it is ended in a bad moment, and who removes it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from daemon import until

from sandbox_magic.engines import cgroups, find_engine, traces
from sandbox_magic.engines.janitor import Janitor
from sandbox_magic.spec import SandboxSpec


def waiting(name: str) -> list[str]:
    """Return the bubblewraps that have this in their command."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if name.encode() in (entry / "cmdline").read_bytes() and (entry / "exe").readlink().name == "bwrap":
                found.append(entry.name)
        except OSError:
            continue
    return found


@pytest.fixture
def stray() -> Iterator[traces.Trace]:
    """A sandbox whose bubblewrap was killed before it let its child go on."""
    trace = traces.Trace.make(os.getuid())
    block, _ = pipe = os.pipe()  # nobody writes what it waits for
    program = shutil.which("bwrap")
    assert program
    null = os.open(os.devnull, os.O_WRONLY)
    command = ["--unshare-user", "--userns-block-fd", str(block), "--info-fd", str(null), "--ro-bind", "/", "/"]
    monitor = subprocess.Popen(
        [program, *command, "--ro-bind", str(trace.pipes), "/mnt", "true"], pass_fds=[block, null]
    )
    os.close(null)
    until("bubblewrap has no child", lambda: len(waiting(trace.ident)) == 2)
    monitor.kill()
    monitor.wait()
    assert len(waiting(trace.ident)) == 1, "it waits for ever"
    yield trace
    for fd in pipe:
        os.close(fd)
    trace.end()
    traces.end_strays([trace.ident])


def test_gc_ends_a_child_that_waits_for_its_dead_parent(stray: traces.Trace) -> None:
    stray.record(pid=999_999_999)  # its monitor, which is dead
    assert stray.ident in find_engine(SandboxSpec(engine="bubblewrap")).sweep().removed
    until("it still waits", lambda: not waiting(stray.ident))
    assert not stray.folder.exists()


@pytest.mark.parametrize(("released", "looks"), [(1, ["docker=unix:///somewhere", "podman="]), (3, [])])
def test_the_janitor_looks_for_containers_that_were_not_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, released: int, looks: list[str]
) -> None:
    program, told = tmp_path / "python", tmp_path / "told"
    program.write_text(f'#!/bin/sh\necho "$4" >>{told}\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    janitor = Janitor()
    for place in (("docker", "unix:///somewhere"), ("podman", ""), ("docker", "unix:///somewhere")):
        janitor.expect(*place)
    for _ in range(released):
        janitor.released()
    janitor.close_in_child()  # as the end of its owner does
    until("it goes on", lambda: not [path for path in commands() if str(program) in path])
    assert (told.read_text().split() if told.exists() else []) == looks


def commands() -> list[str]:
    """Return what all processes were started by."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found.append((entry / "cmdline").read_text(errors="replace"))
    return found


def test_the_janitor_ends_it_too(stray: traces.Trace) -> None:
    janitor = Janitor()
    janitor.remember([stray.folder])
    janitor.close_in_child()  # as the end of its owner does
    until("it still waits", lambda: not waiting(stray.ident))
    until("its folder is left", lambda: not stray.folder.exists())


def test_gc_removes_a_folder_that_was_being_made_by_a_dead_process() -> None:
    dead = traces.home() / f".999999999-5-{'ab' * 32}"
    (dead / "d").mkdir(parents=True)
    (dead / "d").chmod(0o311)
    alive = traces.home() / f".{os.getpid()}-{traces.started_at(os.getpid())}-{'cd' * 32}"
    alive.mkdir()
    try:
        find_engine(SandboxSpec(engine="bubblewrap")).sweep()
        assert not dead.exists() and alive.exists()
    finally:
        alive.rmdir()


def test_groups_are_written_down_before_they_are_made() -> None:
    trace = traces.Trace.make(os.getuid())
    try:
        leaf = cgroups.leaf(trace.ident[:12], cgroups.Wish(64 << 20, 64, 1.0))
        assert leaf is None or set(leaf.folders) <= set(trace.groups())
    finally:
        trace.end()
    assert not any(group.exists() for group in trace.groups())


def test_the_top_group_may_have_groups_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where our own group is the top one, as in a machine whose init makes none."""
    for name in ("cgroup.controllers", "cgroup.procs"):
        (tmp_path / name).touch()
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    own = "0::/\n"
    monkeypatch.setattr(cgroups, "_read", lambda file: own)
    assert list(cgroups._parents()) == [tmp_path]
    own = "0::/user/mine\n"
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "cgroup.procs").touch()
    assert list(cgroups._parents()) == [tmp_path / "user", tmp_path]
