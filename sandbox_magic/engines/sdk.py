"""The calls into the Docker SDK, and what its failures mean."""

from __future__ import annotations

import select
import socket
from typing import Any

from sandbox_magic.ansi import sanitize
from sandbox_magic.errors import EngineError, EngineUnavailable, ImageNotFound


def call(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Call the SDK, and raise what it raises as an error of ours.

    Raises:
        ImageNotFound: The image is not there.
        EngineUnavailable: The engine does not answer.
        EngineError: It refused.
    """
    try:
        return function(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 # every failure of the SDK is one of the engine
        raise _translated(error) from None


def with_patience(api: Any, seconds: float) -> Any:
    """Return the same client, on the same connections, that waits only so long for an answer."""
    brisk = object.__new__(type(api))
    vars(brisk).update(vars(api), timeout=seconds)
    return brisk


def remove(api: Any, ident: str) -> bool:
    """Remove a container, whatever its state; return False if the engine is already at it (AutoRemove).

    Raises:
        EngineUnavailable: The engine does not answer.
        EngineError: It refused.
    """
    from docker.errors import APIError  # noqa: PLC0415 # the SDK is heavy

    try:
        api.remove_container(ident, v=True, force=True)
    except Exception as error:  # noqa: BLE001 # translated below
        if _gone(error):
            return True
        if isinstance(error, APIError) and error.status_code == 409:
            return False
        raise _translated(error) from None
    return True


def exists(api: Any, ident: str) -> bool:
    """Whether the engine knows the container; raises what the SDK raises when it does not answer."""
    from docker.errors import APIError  # noqa: PLC0415

    try:
        api.inspect_container(ident)
    except APIError as error:
        if _gone(error):
            return False
        raise
    return True


def _gone(error: Exception) -> bool:
    """Whether there is no such container; Podman answers 500 while it removes one."""
    from docker.errors import APIError, NotFound  # noqa: PLC0415

    return isinstance(error, NotFound) or (isinstance(error, APIError) and "no such container" in str(error))


def _translated(error: Exception) -> EngineError:
    from docker.errors import APIError  # noqa: PLC0415
    from docker.errors import ImageNotFound as Missing  # noqa: PLC0415

    if isinstance(error, EngineError):
        return error
    if isinstance(error, Missing):
        return ImageNotFound("", str(error.explanation))
    if _gone(error):
        return EngineError(f"the container is gone: {_said(getattr(error, 'explanation', error))}")
    if isinstance(error, APIError):
        return EngineError(f"the engine refused: {_said(error.explanation or error)}")
    return EngineUnavailable(f"the engine does not answer any more: {' '.join(str(error).split())[:200]}")


def _said(words: object) -> str:
    """Return what an engine says, which may quote an image, as one line."""
    return sanitize(" ".join(str(words).split()))


def raw(stream: Any) -> Any:
    """Return the socket below what the SDK hands out: the one place that knows its shapes."""
    return getattr(stream, "_sock", stream)


def owner(stream: Any) -> Any:
    """Return what must be closed beside that socket: the file object around it; over TLS the whole response."""
    return stream if hasattr(stream, "_sock") else getattr(stream, "_response", stream)


def keep_alive(sock: Any) -> Any:
    """Let the system notice a lost link on a socket of the network, as the docker command does; return the socket."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, name):  # macOS calls the first one otherwise, and keeps its own time
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return sock


def readable(sock: Any, timeout: float) -> bool:
    """Whether a socket becomes readable within `timeout` seconds."""
    poll = select.poll()  # `select` refuses descriptors above 1023
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(timeout * 1000))
