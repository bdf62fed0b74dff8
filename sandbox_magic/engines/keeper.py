"""The first process of a container: it reads its attached stdin, and ends with it."""

from __future__ import annotations

KEEPER_USER = "64711:64711"  # in no image's passwd; root without CAP_KILL cannot signal it
# Where the session may be root the container must start as root: else no-new-privileges leaves an exec as root without
# a single capability. The keeper then changes its own user id, with what the image has (util-linux, or busybox's su).
KEEPER = [
    "sh",
    "-c",
    """trap "" HUP INT QUIT TERM
keep=': sandbox-keeper; while read -r line; do :; done' ids='--reuid=64711 --regid=64711 --clear-groups'
[ "$(id -u)" = 0 ] || eval "$keep"
setpriv $ids true </dev/null 2>/dev/null && exec setpriv $ids sh -c "$keep"
su -s /bin/sh nobody -c true </dev/null >/dev/null 2>&1 && exec su -s /bin/sh nobody -c "$keep"
eval "$keep"
""",
    "sandbox-keeper",
]
