"""The first process of a container: it reads its attached stdin, and ends with it."""

from __future__ import annotations

KEEPER_USER = "64711:64711"  # in no image's passwd; root without CAP_KILL cannot signal it
# Where the session may be root the container must start as root: else no-new-privileges leaves an exec as root without
# a single capability. The keeper then changes its own user id, with what the image has (util-linux, or busybox's su).
# With a lease it needs a `read` that gives up after a time and forks nothing, for a cell may have used up all
# processes: busybox and bash have it, dash does not. Whatever it printed would count as its end.
_SCRIPT = """trap "" HUP INT QUIT TERM
sh=sh keep=': sandbox-keeper; while read -r line; do :; done' ids='--reuid=64711 --regid=64711 --clear-groups'
if [ -n "$1" ]; then
  keep=": sandbox-keeper; while read -r -t $1 line; do :; done"
  for sh in sh bash; do { echo | "$sh" -c 'read -r -t 9 line'; } 2>/dev/null && break; done || exit 78
fi
[ "$(id -u)" = 0 ] || exec $sh -c "$keep"
setpriv $ids true </dev/null 2>/dev/null && exec setpriv $ids $sh -c "$keep"
su -s /bin/sh nobody -c true </dev/null >/dev/null 2>&1 && exec su -s /bin/sh nobody -c "exec $sh -c '$keep'"
exec $sh -c "$keep"
"""


def keeper(lease: int | None = None) -> list[str]:
    """Return the keeper's command.

    Args:
        lease: After so many seconds without a byte on its stdin it ends too.
    """
    return ["sh", "-c", _SCRIPT, "sandbox-keeper", *([] if lease is None else [str(lease)])]
