"""A container that its own root holds beyond the end of the kernel that made it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sandbox_magic import SandboxSpec
from sandbox_magic.engines import find_engine
from sandbox_magic.testing.host import until

# Root may become the keeper's user, which no capability is needed for to stop it: then nobody sees that its stdin ends.
# It may take a moment until the keeper has become that user.
HOLD = r"""tries=0
until grep -h '^State.*stopped' /proc/[0-9]*/status 2>/dev/null || [ $((tries += 1)) -gt 200 ]; do
  for file in /proc/[0-9]*/cmdline; do
    pid=${file#/proc/} pid=${pid%/*}
    if [ "$pid" != 1 ] && grep -q 'sandbox-keepe[r]' "$file"; then su -s /bin/sh nobody -c "kill -STOP $pid"; fi
  done 2>/dev/null
  sleep 0.1
done"""
KERNEL = """
import sys, time
from sandbox_magic import Sandbox
box = Sandbox("busybox:latest", engine=sys.argv[1])
print("stopped" in box.run(sys.argv[2], check=True).stdout, box._machine.id, flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("engine", ["docker"])  # with Podman it is the same, and takes twice as long
@pytest.mark.attack("processes", "stop the keeper, so that the sandbox outlives its kernel's SIGKILL", bounded=True)
def test_a_keeper_that_is_stopped(engine: str) -> None:
    """The kernel's janitor looks for it a moment later."""
    command = [sys.executable, "-c", KERNEL, engine, HOLD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as kernel:
        try:
            assert kernel.stdout is not None
            held, ident = kernel.stdout.readline().split()
        finally:
            kernel.kill()
    assert held == "True", "this attack does nothing"
    known = find_engine(SandboxSpec(engine=engine))
    until("it is left", lambda: ident not in {found.id for found in known.found()}, 60)
