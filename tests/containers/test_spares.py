"""When a spare is made, who gets it, and when it goes; with the engine that has one by itself."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sandbox_magic import Sandbox, SandboxSpec, spare
from sandbox_magic.engines import find_engine, traces
from sandbox_magic.spare import Kind, spares
from sandbox_magic.testing.host import nothing_is_left, until

WISH: dict[str, Any] = {"engine": "bubblewrap", "spare": True}
ENGINE = find_engine(SandboxSpec(engine="bubblewrap"))


@pytest.fixture(autouse=True)
def no_spare_is_left() -> Iterator[None]:
    yield
    spares().end()


def ident(box: Sandbox) -> str:
    assert box._machine is not None
    return box._machine.id


def waiting() -> str:
    until("there is no spare", lambda: spares().ready() is not None, 60)
    found = spares().ready()
    assert found is not None
    return found.id


def gone(name: str) -> bool:
    return name not in {found.id for found in ENGINE.found()}


def resting() -> bool:
    return not any(thread.name == "sandbox-spare" for thread in threading.enumerate())


@pytest.mark.parametrize(
    "other",
    [{"pids": 99}, {"env": {"A": "1"}}, {"profile": "sealed"}, {"cwd": "/tmp"}, {"name": "other"}, {"shell": "sh"}],
    ids=lambda other: next(iter(other)),
)
def test_another_kind_does_not_get_it(other: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spare, "REST_SECONDS", 0.1)
    with Sandbox(**WISH):
        first = waiting()
        with Sandbox(**WISH | other) as box:
            assert ident(box) != first
            until("it waits for nobody", lambda: gone(first))
            second = waiting()
            box.reset()
            assert ident(box) == second


def test_none_waits_where_it_would_hold_a_folder_of_the_host() -> None:
    assert Kind(ENGINE, Sandbox(**WISH).spec).spare
    assert not Kind(ENGINE, Sandbox(**WISH, mounts=["/usr/share:/data"]).spec).spare


def test_it_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SandboxSpec(engine="bubblewrap")
    for value, expected in (("", True), ("1", True), ("0", False), ("false", False), ("False", False)):
        monkeypatch.setenv(spare.VARIABLE, value)
        assert Kind(ENGINE, spec).spare is expected
    assert not Kind(ENGINE, SandboxSpec(engine="bubblewrap", spare=False)).spare
    with Sandbox(engine="bubblewrap", spare=False) as box:
        box.run("true")
        assert resting()


def test_one_that_was_ended_while_it_waited_is_not_given() -> None:
    with Sandbox(**WISH) as box:
        dead = waiting()
        ENGINE.remove(dead)
        box.reset()
        assert ident(box) != dead
        result = box.run("echo new")
        assert (result.stdout, result.notes) == ("new\n", ())


def test_one_of_other_files_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the host's files had changed since."""
    with Sandbox(**WISH) as box:
        old = waiting()
        with monkeypatch.context() as patch:
            patch.setattr(type(ENGINE), "stands_on", lambda *_: "something else")
            box.reset()
        assert ident(box) != old
        until("the old one is left", lambda: gone(old))


def test_none_is_made_while_a_cell_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spare, "REST_SECONDS", 1.0)
    seen: list[object] = []
    with Sandbox(**WISH) as box:
        box.run("sleep 2.5; echo x", on_output=lambda _: seen.append(spares().ready()))
        assert seen == [None]
        waiting()


def test_one_short_sandbox_has_none_and_the_second_is_followed_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spare, "REST_SECONDS", 60.0)
    with Sandbox(**WISH):
        pass
    until("there is something to wait for", resting)
    monkeypatch.setattr(spare, "REST_SECONDS", 0.1)
    with Sandbox(**WISH):
        pass
    last = waiting()
    with Sandbox(**WISH) as box:
        assert ident(box) == last
    unwanted = waiting()
    monkeypatch.setattr(spare, "LINGER_SECONDS", 0.2)
    spares().closed()
    until("it waits on", resting)
    assert gone(unwanted)


OWNER = """
import os, sys, time
from sandbox_magic import Sandbox
from sandbox_magic.spare import spares
box = Sandbox(engine="bubblewrap", spare=True).start()
while spares().ready() is None:
    time.sleep(0.05)
print(box._machine.id, spares().ready().id, flush=True)
if sys.argv[1] == "fork" and os.fork() == 0:
    os.close(1)
    time.sleep(15)  # a child that lives on must not hold it
    os._exit(0)
if sys.argv[1] != "end":
    time.sleep(100)
"""


@pytest.mark.parametrize("how", ["end", "sigkill", "fork"])
def test_it_does_not_outlive_its_owner(how: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", OWNER, how], stdout=subprocess.PIPE)
    assert process.stdout is not None
    idents = process.stdout.readline().decode().split()
    assert len(set(idents)) == 2
    if how != "end":
        process.kill()
    process.wait()
    process.stdout.close()
    until("the spare outlived its owner", lambda: all(map(gone, idents)))
    nothing_is_left(idents)


def test_a_forked_child_does_not_take_it() -> None:
    with Sandbox(**WISH) as box:
        name = waiting()
        child = os.fork()
        if child == 0:
            try:
                own = Sandbox(**WISH).start()
                good = spares().ready() is None and ident(own) != name and own.run("echo child").stdout == "child\n"
                own.close()
                os._exit(0 if good else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        box.reset()
        assert ident(box) == name
        assert box.run("echo parent").stdout == "parent\n"


def test_many_threads_get_each_a_sandbox_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """And whatever was made for nobody is ended."""
    monkeypatch.setattr(spare, "REST_SECONDS", 0.0)
    before = {trace.ident for trace in traces.all_traces()}

    def some(number: int) -> list[str]:
        seen = []
        for _ in range(5):
            with Sandbox(**WISH, pids=100 + number % 2) as box:
                assert box.run("[ ! -e /tmp/used ] && touch /tmp/used && ulimit -n -H").stdout == "4096\n"
                seen.append(ident(box))
        return seen

    with ThreadPoolExecutor(6) as pool:
        idents = [name for names in pool.map(some, range(6)) for name in names]
    assert len(set(idents)) == 30
    spares().end()
    left = {trace.ident for trace in traces.all_traces()} - before
    until("sandboxes are left", lambda: all(map(gone, left | set(idents))))
    nothing_is_left(idents)
