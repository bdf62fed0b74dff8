"""What an attempt from inside a sandbox is, and where it is made."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from sandbox_magic import Result, Sandbox

DENIED = "not permitted|[Dd]enied|Read-only|not implemented|Invalid argument"
ABSENT = "No such|not found|no such"
OFFLINE = "unreachable|refused|resolution|Cannot assign|No route"


@dataclass(frozen=True, slots=True)
class Where:
    """An engine and a profile."""

    engine: str
    profile: str

    @property
    def wish(self) -> dict[str, Any]:
        """The arguments of its `Sandbox`."""
        return {"engine": self.engine, "profile": self.profile}

    @property
    def offline(self) -> bool:
        """Whether its sandboxes have no network until somebody asks."""
        return self.profile != "open"

    def __str__(self) -> str:
        return f"{self.engine}-{self.profile}"


# Online is what `open` adds, and bubblewrap has no network.
WHERE = [
    Where(engine, profile)
    for engine in ("docker", "podman", "bubblewrap")
    for profile in ("sealed", "standard", "open")
    if (engine, profile) != ("bubblewrap", "open")
]


class Breach(AssertionError):
    """An attempt succeeded. It is never run again to see whether it fails the next time."""


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt, as code for the shell inside that ends with 0 if it succeeded.

    Attributes:
        code: What is tried.
        why: What it must say when it fails, as a regular expression: that it was refused, and did not merely break.
        without: Engines, profiles, or both as ``docker-open``, where it has no meaning; with the reason beside it.
    """

    group: str
    what: str
    code: str
    why: str = DENIED
    without: frozenset[str] = field(default_factory=frozenset)

    def meant(self, where: Where) -> bool:
        """Whether it has a meaning there."""
        return not self.without & {where.engine, where.profile, str(where)}

    def run(self, box: Sandbox) -> None:
        """Try it in this sandbox."""
        result = box.run(f"if (\n{self.code}\n); then echo SUCCEEDED; else echo failed; fi", timeout=60)
        assert result.exit_code == 0, result
        refused(result, self.why)


def refused(result: Result, why: str) -> None:
    """Check that an attempt failed, and for this reason."""
    if "SUCCEEDED" in result.stdout:
        raise Breach(result.output)
    assert result.stdout.endswith("failed\n"), result.output
    assert re.search(why, result.output), result.output


def each(tries: Iterable[Try]) -> pytest.MarkDecorator:
    """Run a test with every attempt wherever it has a meaning."""
    return pytest.mark.parametrize(("where", "attempt"), list(_product(tries)), indirect=["where"], scope="session")


def _product(tries: Iterable[Try]) -> Iterator[Any]:
    for number, attempt in enumerate(tries):
        mark = pytest.mark.attack(attempt.group, attempt.what)
        for where in WHERE:
            if attempt.meant(where):
                yield pytest.param(where, attempt, id=f"{where}-{number}", marks=mark)


def everywhere(*without: str) -> pytest.MarkDecorator:
    """Run a test at every place but these."""
    places = [where for where in WHERE if not {where.engine, where.profile, str(where)} & set(without)]
    return pytest.mark.parametrize("where", places, ids=str, indirect=True, scope="session")


# name: (number on x86_64, number on aarch64); None where it does not exist. From the kernel's unistd.h.
_NUMBERS: dict[str, tuple[int, int | None]] = {
    "acct": (163, 89),
    "chroot": (161, 51),
    "clone": (56, 220),
    "clone3": (435, 435),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "mlockall": (151, 230),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "sched_setscheduler": (144, 119),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "vhangup": (153, 58),
}


def call(name: str, *arguments: object, before: str = "") -> str:
    """Return code that makes a system call with perl, which every Debian has; texts must be quoted for perl."""
    number = _NUMBERS[name][0 if os.uname().machine == "x86_64" else 1]
    if number is None:
        return "echo 'not implemented' >&2; false"
    texts = [text for text in arguments if isinstance(text, str) and text.startswith('"')]
    before += "".join(f"; $t{index} = {text}" for index, text in enumerate(texts))  # perl passes no constants
    told = ", ".join(f"$t{texts.index(text)}" if text in texts else str(text) for text in (number, *arguments))
    return perl(f'{before}; $r = syscall({told}); if ($r == -1) {{ die "{name}: $!\\n" }}')


def perl(code: str) -> str:
    """Return code for the shell that runs this; it succeeds unless it dies."""
    assert "'" not in code
    return f"perl -MSocket -MFcntl -e '{code}'"
