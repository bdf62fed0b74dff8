"""One small process beside this one, which removes what sandboxes leave when this one is killed.

Of bubblewrap that is folders and control groups. A container ends by itself, when its keeper sees our end; but whoever
is root in it can stop the keeper, and what was made and not yet started has none. So what is still there then is
removed by a sweep that looks at this process's own only.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from sandbox_magic.engines.base import Owner
from sandbox_magic.per_process import PerProcess
from sandbox_magic.shell import script

_SWEEP = """import sys
from sandbox_magic.engines import find_engine
from sandbox_magic.engines.base import Owner
from sandbox_magic.spec import SandboxSpec
name, _, address = sys.argv[1].partition("=")
find_engine(SandboxSpec(engine=name, docker_host=address or None)).sweep(of=OWNER)
"""


class Janitor:
    """A shell in a session of its own, so that a signal to our process group does not end it too."""

    def __init__(self) -> None:
        listen, self._tell = os.pipe()
        sweep = _SWEEP.replace("OWNER", repr(Owner.me()))
        process = subprocess.Popen(
            ["sh", "-c", script("janitor.sh"), "sandbox-janitor", sys.executable, sweep],
            stdin=listen,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        process.returncode = 0  # it ends after us: nobody waits for it
        os.close(listen)

    def remember(self, paths: Iterable[Path]) -> None:
        """Have these removed when this process has ended; it does not matter if they are gone by then."""
        self._say("".join(f"{path}\n" for path in paths))

    def expect(self, engine: str, address: str) -> None:
        """Take note of a container that is about to be made; `released` says that one is gone."""
        self._say(f"+{engine}={address}\n")

    def released(self) -> None:
        """Take note that one of them is gone."""
        self._say("-\n")

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):  # somebody has killed it: then `sandbox-magic gc` does its work
            os.write(self._tell, text.encode())

    def close_in_child(self) -> None:
        """Close a forked child's copy: held open there, it would keep the janitor from seeing our end."""
        os.close(self._tell)


janitor = PerProcess(Janitor, in_child=Janitor.close_in_child)
