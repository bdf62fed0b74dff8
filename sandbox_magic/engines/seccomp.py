"""Which system calls a sandbox may make: one table with reasons, for every engine.

The table is `seccomp.json`, in the language of Docker and Podman, which are given it as it is. bubblewrap is given a
program of classic BPF (`man 2 seccomp`) that is made from it here, with the numbers in `system_calls.json`. What the
table does not name is not there (ENOSYS), as if the kernel were older: so a new call of the kernel opens nothing.
"""

from __future__ import annotations

import errno
import json
import platform
import struct
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

PROFILE = Path(__file__).with_name("seccomp.json")
_NUMBERS = Path(__file__).with_name("system_calls.json")  # on x86_64 and aarch64, from the kernel's unistd.h

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32 = 0x40000000  # the other interface of x86_64, whose numbers begin here
_TYPE_INTO_A_TERMINAL = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX

_LOAD, _EQUAL, _ABOVE, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x54, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_TESTS = {"SCMP_CMP_EQ": _EQUAL, "SCMP_CMP_GT": _ABOVE}

Code = list[tuple[int, int, int, int]]


def known(machine: str) -> bool:
    """Whether the table is for such a machine, by its name in `uname` or in Go."""
    return machine in (*_ARCHITECTURES, "amd64", "arm64")


@cache
def text() -> str:
    """Return `seccomp.json` in few bytes."""
    return json.dumps(table(), separators=(",", ":"))


def table() -> dict[str, Any]:
    """Return `seccomp.json`."""
    read: dict[str, Any] = json.loads(PROFILE.read_text(encoding="utf-8"))
    return read


@cache
def numbers() -> Mapping[str, tuple[int | None, int | None]]:
    """Return the numbers of each call on x86_64 and aarch64; `None` where it does not exist."""
    read: Mapping[str, tuple[int | None, int | None]] = json.loads(_NUMBERS.read_text(encoding="utf-8"))
    return read


@cache
def program(*, sealed: bool, pinned: bool = False, machine: str | None = None) -> bytes | None:
    """Return the filter for the kernel; `None` for a machine whose numbers we do not have.

    Args:
        sealed: Without the rules that need a capability, which nothing has in the profile of that name.
        pinned: Without the call by which a process leaves the processors that it was given.
        machine: Its name in `uname`; this one's by default.
    """
    machine = machine or platform.machine()
    if machine not in _ARCHITECTURES:
        return None
    column, architecture = _ARCHITECTURES[machine]
    profile = table()
    default = _ERROR | profile["defaultErrnoRet"]
    outcomes: dict[int, Code] = {}
    for rule in profile["syscalls"]:
        if sealed and rule.get("includes", {}).get("caps"):
            continue
        for call in rule["names"]:
            if pinned and call == "sched_setaffinity":
                continue
            if (number := numbers()[call][column]) is not None:
                outcomes.setdefault(number, []).extend(_rule(rule))
    if (ioctl := numbers()["ioctl"][column]) is not None:  # Docker's tables cannot say it: they compare 64 bits
        typing = [step for request in _TYPE_INTO_A_TERMINAL for step in _when(1, _EQUAL, request, _ERROR | errno.EPERM)]
        outcomes[ioctl] = [*typing, *outcomes[ioctl]]
    code: Code = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL)]
    code += [(_LOAD, 0, 0, _NUMBER)]
    if machine == "x86_64":
        code += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _ERROR | errno.ENOSYS)]
    for last, outcome in _runs(outcomes, [(_RETURN, 0, 0, default)]):
        code += [(_ABOVE, len(outcome), 0, last), *outcome]
    return b"".join(struct.pack("=HBBI", *step) for step in [*code, (_RETURN, 0, 0, default)])


def _rule(rule: Mapping[str, Any]) -> Code:
    """Return what a rule does with a call that it names: it decides, or goes on to the next rule of that call."""
    action = _ALLOW if rule["action"] == "SCMP_ACT_ALLOW" else _ERROR | rule["errnoRet"]
    code: Code = []
    for argument in rule.get("args", ()):
        index, value = argument["index"], argument["value"]
        if argument["op"] == "SCMP_CMP_MASKED_EQ":
            code += _when(index, _EQUAL, argument["valueTwo"], action, mask=value)
        else:
            code += _when(index, _TESTS[argument["op"]], value, action)
    return code or [(_RETURN, 0, 0, action)]


def _when(argument: int, test: int, value: int, action: int, *, mask: int | None = None) -> Code:
    """Return what decides if the low half of an argument passes a test: all that the kernel reads of these."""
    masked = [] if mask is None else [(_AND, 0, 0, mask)]
    return [(_LOAD, 0, 0, _ARGUMENTS + 8 * argument), *masked, (test, 0, 1, value), (_RETURN, 0, 0, action)]


def _runs(outcomes: Mapping[int, Code], default: Code) -> Iterable[tuple[int, Code]]:
    """Yield the last number of each run of calls with the same outcome, in order: short, for every call reads it."""
    before: tuple[int, Code] | None = None
    for number in range(max(outcomes) + 1):
        outcome = outcomes.get(number, default)
        if len(outcome) > 1:  # rules that look at arguments: what none of them has decided
            outcome = [*outcome, *default]
        if before is not None and before[1] != outcome:
            yield before
        before = number, outcome
    if before is not None:
        yield before
