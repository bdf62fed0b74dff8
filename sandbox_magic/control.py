"""`ControlShell`: a second shell of the same user, kept open, which signals and looks around beside a running cell.

It is opened in the background once the session has its shell, so that no cell waits for it. Its builtin ``kill`` works
when no process can be forked.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from sandbox_magic.errors import SandboxError, SessionError
from sandbox_magic.protocol import STDOUT
from sandbox_magic.shell import script
from sandbox_magic.transport import Transport

_ANSWER_MAX = 1 << 20
_OPEN_SECONDS = 5.0
_CLOSE_SECONDS = 2.0
_SILENT = "the control shell of the sandbox does not answer"


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
        self._opening: Future[Transport] | None = None
        self._patience = _OPEN_SECONDS
        self._lock = threading.Lock()
        self._closed = False

    def open_in_background(self) -> None:
        """Open it without anybody waiting; whoever needs it first waits for the rest."""
        if self._lock.acquire(blocking=False):  # else somebody needs it already
            try:
                if self._transport is None:
                    self._begun()
            finally:
                self._lock.release()

    def call(self, command: str, *, timeout: float = 2.0, errors: str = "replace") -> str:
        """Run a line of POSIX shell and return what it prints; in bounded time, whatever the engine does.

        Args:
            command: The line; a failing command is not an error.
            timeout: Seconds; the first call also waits for the shell itself.
            errors: What to do with bytes that are not UTF-8.

        Raises:
            SessionError: No answer in time; the shell is dropped, and the next call opens a new one.
        """
        if not self._lock.acquire(timeout=timeout + self._patience):
            raise SessionError(_SILENT)
        try:
            transport = self._opened(timeout)
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
                    raise SessionError(_SILENT)
            return answer[: answer.index(fence)].decode(errors=errors)
        finally:
            self._lock.release()

    def gone(self, *pids: int) -> bool:
        """Whether all of these processes have ended; no if nobody can say."""
        with contextlib.suppress(SandboxError):
            return "gone" in self.call(" || ".join(f"[ -d /proc/{pid} ]" for pid in pids) + " || echo gone")
        return False

    def heard(self, pid: int) -> int | None:
        """Return how many bytes a process has read so far; `None` if nobody can say."""
        with contextlib.suppress(SandboxError, ValueError):
            return int(self.call(f"heard {pid}"))
        return None

    def idle(self, pid: int, supervisor: int) -> bool:
        """Whether a shell waits for the next line of ours; no if nobody can say."""
        with contextlib.suppress(SandboxError):
            return "yes" in self.call(f"idle {pid} {supervisor}")
        return False

    def kill(self, pid: int) -> None:
        """End a process by SIGKILL, if anybody answers."""
        with contextlib.suppress(SandboxError):
            self.call(f"kill -s KILL {pid}")

    def close(self) -> None:
        """Close it for good."""
        self._closed = True
        if (opening := self._opening) is not None:
            with contextlib.suppress(Exception):  # an exec that is on its way is not to meet the end of its container
                opening.result(_CLOSE_SECONDS)
        if self._lock.acquire(timeout=_CLOSE_SECONDS):  # else whoever uses it closes it
            try:
                self._drop()
            finally:
                self._lock.release()

    def _opened(self, timeout: float) -> Transport:
        if self._closed:
            raise SessionError("the session is closed")
        if self._transport is None:
            try:
                transport = self._begun().result(max(timeout, self._patience))
            except TimeoutError:
                self._patience = timeout  # it has had its chance
                raise SessionError(_SILENT) from None
            except BaseException:
                self._patience = timeout
                raise
            self._opening, self._transport, self._patience = None, transport, _OPEN_SECONDS
        return self._transport

    def _begun(self) -> Future[Transport]:
        """Open it in a thread, for an engine may take for ever, unless that is begun already and has not failed."""
        opening = self._opening
        if opening is not None and not (opening.done() and opening.exception() is not None):
            return opening
        opening = self._opening = Future()
        threading.Thread(target=self._open, args=(opening,), name="sandbox-control", daemon=True).start()
        return opening

    def _open(self, opening: Future[Transport]) -> None:
        try:
            transport = self._open_transport()
            transport.send(self._setup.encode())
        except BaseException as error:  # noqa: BLE001 # whoever needs it raises it
            opening.set_exception(error)
            return
        opening.set_result(transport)
        if self._closed:
            with self._lock:  # `close` may be at it: a descriptor that is closed twice is another one's by then
                self._drop()

    def _drop(self) -> None:
        """Close what there is, once; what is still being opened is closed by who opens it."""
        if (opening := self._opening) is not None and opening.done():
            self._opening = None
            if opening.exception() is None:
                opening.result().close()
        if self._transport is not None:
            self._transport.close()
            self._transport = None
