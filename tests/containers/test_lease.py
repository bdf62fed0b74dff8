"""A sandbox that has heard nothing of its owner for the time of its lease ends by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from sandbox_magic import Sandbox
from sandbox_magic.engines import find_engine

PLACES = [("docker", "debian:stable-slim"), ("docker", "busybox:latest"), ("podman", "debian:stable-slim")]


@pytest.mark.parametrize(("engine", "image"), PLACES)
def test_it_is_renewed_in_the_background(engine: str, image: str) -> None:
    with Sandbox(image, engine=engine, lease=2) as box:
        box.run("here=yes")
        time.sleep(5)
        result = box.run("echo $here")
        assert (result.stdout, result.notes) == ("yes\n", ())


@pytest.mark.parametrize(("engine", "image"), PLACES)
def test_it_runs_out_when_the_owner_stands_still(engine: str, image: str) -> None:
    program = f"""
import time
from sandbox_magic import Sandbox
box = Sandbox({image!r}, engine={engine!r}, lease=2).start()
print(box._machine.id, flush=True)
time.sleep(100)
"""
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert owner.stdout is not None
        ident = owner.stdout.readline().decode().strip()
        os.kill(owner.pid, signal.SIGSTOP)  # its connections stay open: the engine notices nothing
        docker = find_engine(Sandbox(engine=engine).spec)
        assert ident in [found.id for found in docker.found()]
        deadline = time.monotonic() + 30
        while ident in [found.id for found in docker.found()]:
            assert time.monotonic() < deadline, "the lease did not end the sandbox"
            time.sleep(0.1)
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()
