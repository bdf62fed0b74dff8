"""What a failing cell may need: a hint where the reason is known."""

from __future__ import annotations

import re
from dataclasses import replace

from sandbox_magic.result import Result

OFFLINE = "this sandbox has no network; add --network to the cell"

_SEARCHED = 64 * 1024  # bytes from the end of the output: the reason of a failure comes last
_NO_CONNECTION = re.compile(
    rb"could ?n[o']t resolve|(temporary )?failure (in name resolution|resolving)|unable to resolve (host|address)"
    rb"|name or service not known|name does not resolve|nodename nor servname|bad address '|no such host"
    rb"|server misbehaving|no address associated with hostname|getaddrinfo|EAI_AGAIN|ENOTFOUND|ENETUNREACH"
    rb"|network is unreachable|no route to host|failed to establish a new connection|dns error",
    re.IGNORECASE,
)


def with_hints(result: Result, *, online: bool) -> Result:
    """Return the result, with a hint among its notes if it failed for want of a network."""
    if online or result.exit_code == 0 or OFFLINE in result.notes:
        return result
    if _NO_CONNECTION.search(result.captured.output()[-_SEARCHED:]) is None:
        return result
    return replace(result, notes=(*result.notes, OFFLINE))
