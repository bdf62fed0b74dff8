"""`ControlShell`: a second shell of the same user, kept open, which signals and looks around beside a running cell.

It is opened in the background once the session has its shell, so that no cell waits for it. Its builtin ``kill`` works
when no process can be forked.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable

from sandbox_magic.errors import SandboxError, SessionError
from sandbox_magic.protocol import STDOUT
from sandbox_magic.shell import script
from sandbox_magic.transport import Transport

_ANSWER_MAX = 1 << 20
_OPEN_SECONDS = 10.0


class ControlShell:
    """Commands in, text out; thread-safe; opened again when it was lost."""

    def __init__(self, open_transport: Callable[[], Transport], *, narrow: bool = False) -> None:
        """Describe it; it is opened when it is needed.

        Args:
            open_transport: Opens a ``sh``.
            narrow: A cell's processes are only those of its shell's tree and session, see shell/control.sh.
        """
        self._open_transport = open_transport
        self._setup = script("control.sh") + ("narrow=yes\n" if narrow else "")
        self._transport: Transport | None = None
        self._lock = threading.Lock()
        self._closed = False

    def open_in_background(self) -> None:
        """Open it without anybody waiting; whoever needs it first waits for the rest."""
        threading.Thread(target=self._try_open, name="sandbox-control", daemon=True).start()

    def call(self, command: str, *, timeout: float = 2.0, errors: str = "replace") -> str:
        """Run a line of POSIX shell and return what it prints.

        Args:
            command: The line; a failing command is not an error.
            timeout: Seconds; the first call also waits for the shell itself.
            errors: What to do with bytes that are not UTF-8.

        Raises:
            SessionError: No answer in time; the shell is dropped, and the next call opens a new one.
        """
        with self._lock:
            transport = self._opened()
            token = secrets.token_hex(16)
            transport.send(f"{{ {command}\n}} 2>/dev/null; printf '\\036%s\\n' {token}\n".encode())
            answer = bytearray()
            fence = f"\x1e{token}\n".encode()
            deadline = time.monotonic() + timeout
            while fence not in answer:
                left = deadline - time.monotonic()
                chunks = transport.receive(left) if left > 0 else []
                for stream, data in chunks:
                    if stream == STDOUT:
                        answer += data
                if left <= 0 or ("stdout", b"") in chunks or len(answer) > _ANSWER_MAX:
                    self._drop()
                    raise SessionError("the control shell of the sandbox does not answer")
            return answer[: answer.index(fence)].decode(errors=errors)

    def close(self) -> None:
        """Close it for good."""
        self._closed = True
        with self._lock:
            self._drop()

    def _opened(self) -> Transport:
        if self._transport is None:
            if self._closed:
                raise SessionError("the session is closed")
            self._transport = self._open_transport()
            self._transport.send(self._setup.encode())
        return self._transport

    def _try_open(self) -> None:
        try:
            self.call(":", timeout=_OPEN_SECONDS)
        except SandboxError:
            return  # the call that needs it will say so

    def _drop(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None
