"""What a failing cell may need: a hint where the reason is known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sandbox_magic.result import Result

if TYPE_CHECKING:
    from sandbox_magic.egress.gate import Access

OFFLINE = "this sandbox has no network; add --network to the cell"

BY_NAME = (
    "this sandbox reaches some names only, and only through the proxy in $https_proxy; see %sandboxctl network log"
)
ALLOW = "add --network=NAME to the cell, or %sandboxctl network allow NAME"

_REFUSED_SHOWN = 3
_SEARCHED = 64 * 1024  # bytes from the end of the output: the reason of a failure comes last
_NO_CONNECTION = re.compile(
    rb"could ?n[o']t resolve|(temporary )?failure (in name resolution|resolving)|unable to resolve (host|address)"
    rb"|name or service not known|name does not resolve|nodename nor servname|bad address '|no such host"
    rb"|server misbehaving|no address associated with hostname|getaddrinfo|EAI_AGAIN|ENOTFOUND|ENETUNREACH"
    rb"|network is unreachable|no route to host|failed to establish a new connection|dns error",
    re.IGNORECASE,
)


def with_hints(result: Result, *, online: bool, refused: Sequence[Access] = ()) -> Result:
    """Return the result, with hints among its notes if it failed for want of a network.

    Args:
        result: The result.
        online: Whether all of the network was there.
        refused: What was refused while it ran.
    """
    if result.exit_code == 0 or result.notes[-1:] == (OFFLINE,):
        return result
    hints = list(dict.fromkeys(f"refused: {access.name}:{access.port}: {access.reason}" for access in refused))
    if hints:
        hints = [*hints[:_REFUSED_SHOWN], ALLOW]
    elif not online and _NO_CONNECTION.search(result.captured.output()[-_SEARCHED:]) is not None:
        hints = [OFFLINE]
    return replace(result, notes=(*result.notes, *hints)) if hints else result
