"""Names, conflicts, forks and the end of the process; what a sandbox does is tested with real ones elsewhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from sandbox_magic.errors import EngineError, InvalidOptions
from sandbox_magic.manager import SandboxManager, current_manager
from sandbox_magic.spec import SandboxSpec


class Box:
    """As much of a sandbox as the manager looks at."""

    def __init__(self, *, spec: SandboxSpec, name: str, on_progress: Callable[[str], None]) -> None:
        self.spec = spec
        self.name = name
        self.report = on_progress
        self.started = False
        self.last: object | None = None
        self.closed = self.resets = 0
        self.close_takes = 0.0
        self.close_raises = False

    def close(self) -> None:
        time.sleep(self.close_takes)
        self.closed += 1
        if self.close_raises:
            raise EngineError("gone")

    def reset(self) -> None:
        self.resets += 1


@pytest.fixture
def manager() -> SandboxManager:
    return SandboxManager(Box)  # type: ignore[arg-type]


def started(manager: SandboxManager, name: str = "default", **wish: Any) -> Any:
    box: Any = manager.get(name, wish)
    box.started = True
    return box


def test_get_starts_nothing_and_gives_the_same_one_again(manager: SandboxManager) -> None:
    box = manager.get()
    assert not box.started and box.name == "default" and box.spec == SandboxSpec()
    assert manager.get() is box
    assert manager.get("other") is not box
    assert manager.names() == ["default", "other"]


def test_wish_goes_before_defaults(manager: SandboxManager) -> None:
    box = manager.get("a", {"image": "wished"}, {"image": "set", "profile": "sealed"})
    assert (box.spec.image, box.spec.profile) == ("wished", "sealed")


def test_later_wish_must_agree(manager: SandboxManager) -> None:
    box = started(manager, image="one", cpus=1.0)
    assert manager.get("default", {"image": "one"}) is box
    assert manager.get("default", {"cpus": 1}) is box
    assert manager.get("default", {}, {"image": "set meanwhile"}) is box  # a default is not a wish
    with pytest.raises(InvalidOptions) as error:
        manager.get("default", {"image": "two", "user": "me"})
    said = str(error.value)
    assert "image is 'one'" in said and "user is " in said and "cpus" not in said
    assert "another --name" in said and "`%sandboxctl reset`" in said
    assert not box.closed and manager.get() is box


def test_conflict_of_a_named_sandbox_names_it(manager: SandboxManager) -> None:
    started(manager, "py")
    with pytest.raises(InvalidOptions, match=r"%sandboxctl reset -n py"):
        manager.get("py", {"image": "two"})


def test_invalid_wish_changes_nothing(manager: SandboxManager) -> None:
    box = started(manager)
    with pytest.raises(InvalidOptions):
        manager.get("default", {"profile": "no such profile"})
    with pytest.raises(InvalidOptions):
        manager.get("new", {"profile": "no such profile"})
    assert manager.get() is box and not box.closed
    assert manager.names() == ["default"]


def test_wish_of_a_failed_start_is_forgotten(manager: SandboxManager) -> None:
    """A misspelt image must neither block the right one nor stay for the next cell."""
    failed: Any = manager.get("default", {"image": "debain"})
    right = manager.get("default", {"image": "debian"})
    assert right is not failed and failed.closed == 1
    assert manager.get().spec == SandboxSpec()


def test_vanished_sandbox_keeps_its_spec(manager: SandboxManager) -> None:
    """Only a wish can change the image; the end of an engine must not."""
    box = started(manager, image="one")
    box.started, box.last = False, object()
    assert manager.get() is box
    with pytest.raises(InvalidOptions):
        manager.get("default", {"image": "two"})


def test_reset_allows_another_wish_once(manager: SandboxManager) -> None:
    box = started(manager, image="one")
    manager.reset()
    assert box.resets == 1 and manager.get("default", {"image": "one"}) is box
    with pytest.raises(InvalidOptions):
        manager.get("default", {"image": "two"})
    manager.reset()
    new = manager.get("default", {"image": "two"})
    assert new is not box and box.closed == 1 and new.spec.image == "two"


def test_progress_goes_to_the_latest_listener(manager: SandboxManager) -> None:
    first: list[str] = []
    second: list[str] = []
    box: Any = manager.get(on_progress=first.append)
    box.report("one")
    manager.get(on_progress=second.append)
    box.report("two")
    manager.get()
    box.report("three")
    assert (first, second) == (["one"], ["two"])


def test_close_frees_the_name(manager: SandboxManager) -> None:
    box = started(manager, image="one")
    manager.close()
    assert box.closed == 1 and manager.names() == []
    assert manager.get("default", {"image": "two"}).spec.image == "two"


@pytest.mark.parametrize("verb", ["find", "close", "reset"])
def test_unknown_name(manager: SandboxManager, verb: str) -> None:
    with pytest.raises(InvalidOptions, match="there is none yet"):
        getattr(manager, verb)("box")
    manager.get("python")
    with pytest.raises(InvalidOptions, match=r"did you mean 'python'\?"):
        getattr(manager, verb)("pyhton")
    with pytest.raises(InvalidOptions, match="there are: python"):
        getattr(manager, verb)("box")


def test_close_all_is_parallel_and_survives_failures(manager: SandboxManager) -> None:
    boxes = [started(manager, f"box{number}") for number in range(8)]
    for box in boxes:
        box.close_takes = 0.75
    boxes[0].close_raises = True
    began = time.monotonic()
    manager.close_all(timeout=5)
    assert time.monotonic() - began < 5
    assert [box.closed for box in boxes] == [1] * 8
    assert manager.names() == []


def test_close_all_does_not_wait_for_a_dead_engine(manager: SandboxManager) -> None:
    started(manager).close_takes = 20.0
    began = time.monotonic()
    manager.close_all(timeout=0.05)
    assert time.monotonic() - began < 10


def test_close_all_without_new_threads(manager: SandboxManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """Since Python 3.12 no thread starts while the interpreter ends."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    boxes = [started(manager, name) for name in ("a", "b")]
    monkeypatch.setattr(threading.Thread, "start", refuse)
    manager.close_all()
    assert [box.closed for box in boxes] == [1, 1]


def test_many_threads_get_one_sandbox(manager: SandboxManager) -> None:
    found: list[object] = []
    together = threading.Barrier(8)

    def get() -> None:
        together.wait()
        found.append(manager.get())

    threads = [threading.Thread(target=get) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(map(id, found))) == 1


def in_child(check: Callable[[], bool]) -> int:
    """Return the exit code of a forked child: 0 if the check holds there."""
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            signal.alarm(5)  # a child that hangs on a lock must not hang the tests
            code = 0 if check() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_forked_child_owns_nothing(manager: SandboxManager) -> None:
    box = started(manager)

    def check() -> bool:
        manager.close_all()
        refused = 0
        for verb in (manager.get, manager.find, manager.close, manager.reset):
            try:
                verb()
            except InvalidOptions:
                refused += 1
        return refused == 4 and manager.names() == [] and not box.closed and not box.resets

    assert in_child(check) == 0
    assert manager.get() is box


def test_forked_child_has_a_manager_of_its_own() -> None:
    mine = current_manager()
    assert current_manager() is mine
    assert in_child(lambda: current_manager() is not mine and current_manager().names() == []) == 0


def test_fork_while_another_thread_holds_the_locks(manager: SandboxManager) -> None:
    from sandbox_magic import manager as module  # noqa: PLC0415 # its lock is replaced in the child, not here

    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with module._managers_lock, manager._lock:
            held.set()
            done.wait(5)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(5)
    try:
        assert in_child(lambda: manager.names() == [] and manager.close_all() is None and bool(current_manager())) == 0
    finally:
        done.set()
        thread.join()


AT_EXIT = """
import os
from sandbox_magic.manager import current_manager

class Box:
    started, last = True, None
    def __init__(self, *, spec, name, on_progress):
        self.spec, self.name = spec, name
    def close(self):
        os.write(1, f"closed {self.name}\\n".encode())

manager = current_manager()
manager._make = Box
manager.get("a"), manager.get("b")
if os.fork() == 0:
    raise SystemExit  # runs the hooks of the exit as well
os.wait()
os.write(1, b"end of the parent\\n")
"""


def test_exit_closes_everything_once_and_only_in_the_owner() -> None:
    ended = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True, timeout=30, check=True)
    first, *rest = ended.stdout.splitlines()
    assert first == "end of the parent"
    assert sorted(rest) == ["closed a", "closed b"]


def test_import_loads_no_engine() -> None:
    code = (
        "import sys, sandbox_magic.manager;"
        "print(sorted({'docker', 'IPython', 'sandbox_magic.engines'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert ended.stdout.strip() == "[]"
