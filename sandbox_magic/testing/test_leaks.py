"""Many sandboxes, one after another, and nothing is left of them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from sandbox_magic import Sandbox
from sandbox_magic.engines import find_engine
from sandbox_magic.spare import spares
from sandbox_magic.testing.host import Kept, nothing_is_left, until

FAST_SECONDS = 0.3
CONNECTIONS = 12  # may wait to be used again, such as the ten of the Docker SDK; one for each sandbox would be more


def live(wish: dict[str, Any]) -> str:
    """Start a sandbox, leave something running in it, close it; return its id."""
    with Sandbox(**wish) as box:
        assert box.run("sleep 1000 & echo here").stdout == "here\n"
        assert box._machine is not None
        return box._machine.id


@pytest.mark.alike("shell", "image")
def test_200_sandboxes_leave_nothing(wish: dict[str, Any]) -> None:
    """200 where a sandbox lives for less than 0.3 s; 15 where it takes longer, as a container does."""
    engine = find_engine(Sandbox(**wish).spec)
    wish = wish | {"spare": engine.spare}
    live(wish)  # makes what a process keeps: connections, helper threads
    spares().end()
    before = Kept.now()
    begun = time.monotonic()
    idents = [live(wish)]
    idents += [live(wish) for _ in range(199 if time.monotonic() - begun < FAST_SECONDS else 14)]
    spares().end()
    until("sandboxes are left", lambda: not {found.id for found in engine.found()} & set(idents))
    until("threads are left", lambda: Kept.now().threads <= before.threads)
    until("processes are left", lambda: Kept.now().children <= before.children)
    until("descriptors are left", lambda: Kept.now().descriptors <= before.descriptors + CONNECTIONS)
    nothing_is_left(idents)
