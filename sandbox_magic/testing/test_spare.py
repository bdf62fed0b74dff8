"""The spare: what waits for the next sandbox is as good as a new one, and nothing of it is left."""

from __future__ import annotations

from typing import Any

from sandbox_magic import Sandbox
from sandbox_magic.engines import find_engine
from sandbox_magic.spare import spares
from sandbox_magic.testing.host import nothing_is_left, until

_LIMITS = "ulimit -n -H; ulimit -c"


def waiting() -> str:
    """Wait for the spare; return the id of its machine."""
    until("there is no spare", lambda: spares().ready() is not None, 60)
    spare = spares().ready()
    assert spare is not None
    return spare.id


def test_a_reset_takes_the_spare_and_nothing_is_left(wish: dict[str, Any]) -> None:
    """The shell in it is as new, its limits hold, and it goes with `end`."""
    engine = find_engine(Sandbox(**wish).spec)
    with Sandbox(**wish | {"spare": True, "pids": 100, "env": {"GIVEN": "yes"}}) as box:
        assert box._machine is not None
        idents = [box._machine.id, waiting()]
        limits = box.run(_LIMITS, check=True).stdout
        box.run("touch /tmp/old; old=1; cd /", check=True)
        box.reset()
        assert box._machine.id == idents[1]
        fresh = box.run('echo "$GIVEN ${old-unset} $PWD"; ls /tmp/old 2>/dev/null')
        assert fresh.stdout == f"yes unset {box.spec.cwd}\n"
        assert fresh.notes == ()
        assert box.run(_LIMITS).stdout == limits
        assert box.status()["pids limit"] == 100
        until("the old one is left", lambda: idents[0] not in {found.id for found in engine.found()})
        idents.append(waiting())
        assert len(set(idents)) == 3, "the one that was taken is not given away again"
        assert {idents[1], idents[2]} <= {found.id for found in engine.found()}
    spares().end()
    assert spares().ready() is None
    until("sandboxes are left", lambda: not {found.id for found in engine.found()} & set(idents))
    nothing_is_left(idents)
