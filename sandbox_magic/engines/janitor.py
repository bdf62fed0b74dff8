"""One small process beside this one, which removes what bubblewrap sandboxes leave when this one is killed."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from sandbox_magic.per_process import PerProcess
from sandbox_magic.shell import script


class Janitor:
    """A shell in a session of its own, so that a signal to our process group does not end it too."""

    def __init__(self) -> None:
        listen, self._tell = os.pipe()
        process = subprocess.Popen(
            ["sh", "-c", script("janitor.sh"), "sandbox-janitor"],
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
        with contextlib.suppress(OSError):  # somebody has killed it: then `sandbox-magic gc` removes them
            os.write(self._tell, "".join(f"{path}\n" for path in paths).encode())

    def close_in_child(self) -> None:
        """Close a forked child's copy: held open there, it would keep the janitor from seeing our end."""
        os.close(self._tell)


janitor = PerProcess(Janitor, in_child=Janitor.close_in_child)
