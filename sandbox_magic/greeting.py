"""The first words between us and a new supervisor."""

from __future__ import annotations

import time

from sandbox_magic.ansi import sanitize
from sandbox_magic.errors import ShellExited, StartTimeout
from sandbox_magic.protocol import Ready, ShellProtocol, State
from sandbox_magic.transport import Transport

_START_SECONDS = 30.0
_SAID_MAX = 300  # bytes


def greet(transport: Transport, protocol: ShellProtocol) -> None:
    """Wait for the supervisor and give its shell the settings.

    Raises:
        StartTimeout, ShellExited: It did not answer in 30 s; it ended at once.
    """
    said = b""
    deadline = time.monotonic() + _START_SECONDS
    while protocol.state is State.STARTING:
        left = deadline - time.monotonic()
        if left <= 0:
            raise StartTimeout(f"the shell in the sandbox did not answer in {_START_SECONDS:g} s")
        for stream, data in transport.receive(left):
            said = (said + data)[-_SAID_MAX:]
            for event in protocol.receive(stream, data):
                if isinstance(event, Ready):
                    transport.send(protocol.start())
            if protocol.severed:
                code = transport.exit_code()
                why = sanitize(said.decode(errors="replace").strip()) or "it said nothing"
                raise ShellExited(f"the sandbox's shell ended at once (exit code {code}): {why}")
