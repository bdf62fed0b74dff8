"""bubblewrap where the user's manager could limit a sandbox, and does not: `tests/vm.py` has those that do."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from sandbox_magic import Sandbox
from sandbox_magic.engines import cgroups, scopes
from sandbox_magic.errors import EngineError


def test_a_manager_that_refuses_is_asked_once_and_the_sandbox_starts_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def ask(*request: str) -> None:
        asked.append(request)
        run(*request)

    run = scopes._ask
    monkeypatch.setattr(scopes, "_refused", threading.Event())
    monkeypatch.setattr(scopes, "_bus", lambda: tmp_path / "nobody-listens")
    monkeypatch.setattr(scopes, "_ask", ask)
    monkeypatch.setattr(scopes, "places", lambda name: [cgroups.ROOT / f"sandbox-magic-{name}.scope"])
    monkeypatch.setattr(cgroups, "leaf", lambda name, wish: None)
    for _ in range(2):
        with Sandbox(engine="bubblewrap", cpus=1) as box:
            assert box.run("echo works").stdout == "works\n"
            assert str(box.status()["limits by"]).startswith("a watchdog for memory")
    assert len(asked) == 1


def test_a_scope_that_holds_less_than_was_asked_is_refused(tmp_path: Path) -> None:
    wish = cgroups.Wish(64 << 20, 60, 0.5)
    held = {"memory.max": "67108864", "memory.swap.max": "0", "pids.max": "60", "cpu.max": "50000 100000"}
    for name, text in held.items():
        (tmp_path / name).write_text(text)
    cgroups.compare(tmp_path, wish)
    for name, text in held.items():
        (tmp_path / name).write_text("max")
        with pytest.raises(EngineError, match=name):
            cgroups.compare(tmp_path, wish)
        (tmp_path / name).write_text(text)
