"""The calls into the Docker SDK, and what its failures mean."""

from __future__ import annotations

import select
from typing import Any

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


def remove(api: Any, ident: str) -> bool:
    """Remove a container, whatever its state; return False if the engine is already at it (AutoRemove).

    Raises:
        EngineUnavailable: The engine does not answer.
        EngineError: It refused.
    """
    from docker.errors import APIError, NotFound  # noqa: PLC0415 # the SDK is heavy

    try:
        api.remove_container(ident, v=True, force=True)
    except NotFound:
        return True
    except Exception as error:  # noqa: BLE001 # translated below
        if isinstance(error, APIError) and error.status_code == 409:
            return False
        raise _translated(error) from None
    return True


def exists(api: Any, ident: str) -> bool:
    """Whether the engine knows the container; raises what the SDK raises when it does not answer."""
    from docker.errors import NotFound  # noqa: PLC0415

    try:
        api.inspect_container(ident)
    except NotFound:
        return False
    return True


def _translated(error: Exception) -> EngineError:
    from docker.errors import APIError, NotFound  # noqa: PLC0415
    from docker.errors import ImageNotFound as Missing  # noqa: PLC0415

    if isinstance(error, EngineError):
        return error
    if isinstance(error, Missing):
        return ImageNotFound("", str(error.explanation))
    if isinstance(error, NotFound):
        return EngineError(f"the container is gone: {error.explanation}")
    if isinstance(error, APIError):
        return EngineError(f"the Docker Engine refused: {error.explanation or error}")
    return EngineUnavailable(f"the Docker Engine does not answer any more: {' '.join(str(error).split())[:200]}")


def raw(stream: Any) -> Any:
    """Return the socket below what the SDK hands out: the one place that knows its shapes."""
    return getattr(stream, "_sock", stream)


def readable(sock: Any, timeout: float) -> bool:
    """Whether a socket becomes readable within `timeout` seconds."""
    poll = select.poll()  # `select` refuses descriptors above 1023
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(timeout * 1000))
