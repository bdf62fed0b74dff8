"""Who limits a bubblewrap sandbox where control groups are version 2: `scripts/vm.sh` runs this in its machine.

SANDBOX_LIMITS_BY is what `status` must say there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from sandbox_magic import Sandbox
from sandbox_magic.testing.host import left, until

GROW = "x=x; while :; do x=$x$x$x$x; done"
WISH = {"engine": "bubblewrap", "memory": "64m", "pids": 60, "cpus": 0.5}
OWNER = f"""
import json, time
from sandbox_magic import Sandbox
box = Sandbox(**{WISH!r}).start()
box.run("setsid sleep 3000 >/dev/null 2>&1 &")
print(json.dumps(box.status()["sandbox"]), flush=True)
time.sleep(3000)
"""


def groups(ident: str) -> list[Path]:
    """Return the groups of a sandbox that the host has."""
    return [path for path in Path("/sys/fs/cgroup").rglob(f"*{ident}*") if path.is_dir()]


def test_the_kernel_has_the_limits_and_status_says_who_set_them() -> None:
    with Sandbox(**WISH) as box:
        result = box.run("true")
        status = box.status()
        assert (result.exit_code, result.notes) == (0, ())
        assert status["limits by"] == os.environ["SANDBOX_LIMITS_BY"]
        (group,) = groups(str(status["sandbox"]))
        found = {name: (group / name).read_text().strip() for name in ("memory.max", "pids.max", "cpu.max")}
        assert found == {"memory.max": str(64 << 20), "pids.max": "60", "cpu.max": "50000 100000"}
        assert (group / "memory.swap.max").read_text() == "0\n"
        assert (group / "cgroup.procs").read_text().split()
    assert not groups(str(status["sandbox"]))


def test_a_sandbox_outlives_every_end_of_its_memory() -> None:
    """A manager that ends a scope whose memory has run out would do it by the second time."""
    with Sandbox(**WISH) as box:
        box.run("kept=alive")
        for _ in range(3):
            result = box.run(f"sh -c '{GROW}'")
            assert result.exit_code == 137 and result.limits[0].startswith("the memory limit (64m) was reached")
            assert box.run("sleep 2; echo $kept").stdout == "alive\n"


def test_nothing_outlives_a_killed_owner() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        ident = json.loads(owner.stdout.readline())
        assert len(groups(ident)) == 1
        owner.send_signal(signal.SIGKILL)
    until(f"the sandbox {ident} is gone", lambda: not groups(ident) and not left([ident]), seconds=200)
