"""A socket of an engine on another machine, brought here by one `ssh` process that ends with this one."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from sandbox_magic.errors import EngineUnavailable
from sandbox_magic.transport import close_in_child

_CONNECT_SECONDS = 30
_URL = re.compile(r"ssh://(?:([^@/]+)@)?(\[[^]]+\]|(?!-)[^@:/\[\]]+)(?::(\d+))?(/.*)?")
# No question at a terminal that nobody sees; no sharing with another ssh, which would keep the socket after our end; a
# lost link is noticed after 90 s; only the user of this process may use the socket.
_OPTIONS = (
    *("-T", "-a", "-x", "-oBatchMode=yes", "-oExitOnForwardFailure=yes", "-oControlPath=none", "-oRemoteCommand=none"),
    *("-oPermitLocalCommand=no", "-oStreamLocalBindMask=0177", "-oServerAliveInterval=30", "-oServerAliveCountMax=3"),
)
# The shell beside ssh removes the folder when ssh has ended, also if we have ended before.
_CLEAN = 'folder=$1; shift; "$@"; rm -rf "$folder"'


class Tunnel:
    """The forwarded socket.

    Attributes:
        path: Where it is on this machine.
    """

    def __init__(self, url: str, default: str) -> None:
        """Connect.

        Args:
            url: ``ssh://[USER@]HOST[:PORT][/PATH]``; the path is that of the engine's socket on the other machine.
            default: The path if the address has none.

        Raises:
            EngineUnavailable: No connection; with the last words of ssh.
        """
        match = _URL.fullmatch(url)
        if match is None:
            raise EngineUnavailable("not an address: write ssh://USER@HOST[:PORT][/PATH/TO/SOCKET]")
        user, host, port, there = match.groups()
        self._folder = Path(tempfile.mkdtemp(prefix="sandbox-magic-"))
        self.path = str(self._folder / "socket")
        token = secrets.token_hex(8)
        command = ["ssh", *_OPTIONS, f"-L{self.path}:{there if (there or '/') != '/' else default}"]
        command += [*(("-l", user) if user else ()), *(("-p", port) if port else ())]
        # What runs there reads until our end of its stdin is closed: by us, or by our end.
        command += ["--", host.strip("[]"), f"echo {token}; exec cat >/dev/null"]
        self._stdin, theirs = socket.socketpair()
        close_in_child(self._stdin)
        with theirs:
            self._process = subprocess.Popen(
                ["sh", "-c", _CLEAN, "sh", str(self._folder), *command],
                stdin=theirs.fileno(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait(token.encode())
        except BaseException:
            self.close()
            raise

    def _wait(self, token: bytes) -> None:
        """Wait for the word of the other side; what its shell prints at a login may come before."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + _CONNECT_SECONDS
        said = b""
        with self._process.stdout as stdout, selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while token not in said:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise EngineUnavailable(f"ssh did not connect in {_CONNECT_SECONDS} s")
                data = os.read(stdout.fileno(), 4096)
                if not data:
                    raise EngineUnavailable(said.decode(errors="replace").strip() or "ssh ended without a word")
                said = (said + data)[-4096:]

    def alive(self) -> bool:
        """Whether ssh still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it; again is allowed."""
        self._stdin.close()
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
