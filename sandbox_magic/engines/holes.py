"""Known holes of the parts that a sandbox's walls are made of: the table, and what a version says about it.

A version proves nothing: distributions mend old versions and keep their number. So a part "may have" a hole; what to do
about it includes looking at the distribution's changelog.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hole:
    """One hole, or several with the same cure.

    Attributes:
        names: What to look for in a changelog.
        component: The part that has it, as `components` names it.
        fixed: The first version without it, one for each branch that was mended.
        reason: What it lets happen.
        advice: What to do beside getting a version without it; empty if nothing helps.
    """

    names: str
    component: str
    fixed: tuple[str, ...]
    reason: str
    advice: str = ""


HOLES = (
    Hole(
        "CVE-2026-41567, CVE-2026-41568, CVE-2026-42306",
        "Docker Engine",
        ("29.5.1",),
        "`docker cp` from or to a sandbox that runs hostile code can give it the host",
        "never use `docker cp` with a sandbox; `put` and `get` do not use it",
    ),
    Hole(
        "a default seccomp profile with io_uring",
        "Docker Engine",
        ("25.0.0",),
        "sandboxes reach a part of the kernel that has had many holes",
        "for hostile programs use gVisor, or set kernel.io_uring_disabled=2 on the host",
    ),
    Hole(
        "CVE-2024-21626",
        "runc",
        ("1.1.12",),
        "a hostile image can reach the host's files through a descriptor that was left open",
        "use images that you trust",
    ),
    Hole(
        "CVE-2025-31133, CVE-2025-52565, CVE-2025-52881",
        "runc",
        ("1.2.8", "1.3.3"),
        "a hostile image or mount can write to the host's /proc while a sandbox starts",
        "use images that you trust",
    ),
    Hole(
        "CVE-2026-87766",
        "bubblewrap",
        ("0.12.0",),
        "a root that a sandbox has written can make files on the host while the next one starts",
        "nothing is needed for sandboxes of ours, which never get such a root",
    ),
    Hole(
        "CVE-2025-4517, CVE-2025-4138, CVE-2025-4330",
        "Python",
        ("3.9.23", "3.10.18", "3.11.13", "3.12.11", "3.13.4"),
        "`tarfile` writes outside its target in spite of its filters",
        "never unpack an archive from a sandbox with it; `get` does not use it for that",
    ),
    Hole(
        "CVE-2026-42557",
        "JupyterLab",
        ("4.5.7",),
        "one click into the HTML output of a cell can run any command",
        "never show HTML from a sandbox; we never do",
    ),
)


def possible(parts: Mapping[str, str]) -> list[Hole]:
    """Return the holes that these parts may have, by their versions; one that cannot be read may have all."""
    return [hole for hole in HOLES if hole.component in parts and not _mended(parts[hole.component], hole.fixed)]


def cure(hole: Hole, version: str) -> str:
    """Return the versions to get: the one of the same branch, else all that are newer."""
    have = _numbers(version)
    near = [text for text in hole.fixed if _numbers(text)[:2] == have[:2]]
    return " or ".join(near or [text for text in hole.fixed if _numbers(text) > have])


def named(name: str) -> Hole:
    """Return the hole with this name, one of them if it has several."""
    return next(hole for hole in HOLES if name in hole.names.split(", "))


def _mended(version: str, fixed: tuple[str, ...]) -> bool:
    have = _numbers(version)
    fixes = [_numbers(text) for text in fixed]
    return have >= max(fixes) or any(have[:2] == fix[:2] and have >= fix for fix in fixes)


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()


def components(told: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return the version of each part that an engine of Docker's kind lists, by the name that the table uses.

    Podman wraps names and versions in sentences: "OCI Runtime (runc)" has the version "runc version 1.1.5 commit: ...".
    """
    parts = {}
    for entry in told:
        name = re.sub(r"^.*\((.+)\)$", r"\1", entry.get("Name", ""))
        version = re.search(r"\d+\.\d[^\s,]*", entry.get("Version", ""))
        parts["Docker Engine" if name == "Engine" else name] = version[0] if version else "unknown"
    return parts
