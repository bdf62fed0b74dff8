"""Pulling an image, with one line of progress."""

from __future__ import annotations

from typing import Any

from sandbox_magic.engines.base import Progress
from sandbox_magic.errors import ImageNotFound


def image(api: Any, name: str, progress: Progress) -> None:
    """Pull an image.

    Args:
        api: The SDK's low-level client.
        name: The image, with or without a tag.
        progress: Gets ``pulling NAME: 40 %`` and the like.

    Raises:
        ImageNotFound: With the engine's reason.
    """
    repository, _, tag = name.partition("@") if "@" in name else name.rpartition(":")
    if not repository or "/" in tag:
        repository, tag = name, "latest"
    layers: dict[str, tuple[int, int]] = {}
    progress(f"pulling {name}")
    try:
        for event in api.pull(repository, tag=tag, stream=True, decode=True):
            if "error" in event:
                raise ImageNotFound(name, _short(event["error"]))
            detail = event.get("progressDetail") or {}
            if event.get("status") == "Downloading" and detail.get("total"):
                layers[event.get("id", "")] = (detail.get("current", 0), detail["total"])
                done, total = (sum(column) for column in zip(*layers.values(), strict=True))
                progress(f"pulling {name}: {done / 1e6:.0f} of {total / 1e6:.0f} MB")
            elif event.get("status") in ("Extracting", "Verifying Checksum"):
                progress(f"pulling {name}: {event['status'].lower()}")
    except ImageNotFound:
        raise
    except Exception as error:  # noqa: BLE001 # whatever stopped the pull is the reason
        raise ImageNotFound(name, _short(getattr(error, "explanation", None) or str(error))) from None


def _short(text: str) -> str:
    return " ".join(str(text).split())[:300]
