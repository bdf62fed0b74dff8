"""The table of system calls, and the program that is made of it, run as the kernel runs it."""

from __future__ import annotations

import errno
import struct
from collections import Counter

import pytest

from sandbox_magic.engines import seccomp

ALLOW, KILL = 0x7FFF0000, 0x80000000
MACHINES = {"x86_64": 0, "aarch64": 1}
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
BY_ARGUMENT = {"clone", "ioctl", "personality", "socket", "socketpair"}


def outcome(machine: str, number: int, *arguments: int, sealed: bool = False, architecture: int = 0) -> int:
    """Return what the program says about a call: 0 for allowed, else the errno, or -1 for the end of the process."""
    code = seccomp.program(sealed=sealed, machine=machine)
    assert code is not None
    data = struct.pack(
        "=iIQ6Q", number, architecture or ARCHITECTURES[machine], 0, *arguments, *[0] * (6 - len(arguments))
    )
    steps = list(struct.iter_unpack("=HBBI", code))
    at = value = 0
    while True:
        operation, if_true, if_false, operand = steps[at]
        at += 1
        if operation == 0x20:
            (value,) = struct.unpack_from("=I", data, operand)
        elif operation == 0x54:
            value &= operand
        elif operation == 0x06:
            return {ALLOW: 0, KILL: -1}.get(operand, operand & 0xFFFF)
        else:
            holds = {0x15: value == operand, 0x25: value > operand, 0x35: value >= operand}[operation]
            at += if_true if holds else if_false


def call(machine: str, name: str, *arguments: int, sealed: bool = False) -> int:
    number = seccomp.numbers()[name][MACHINES[machine]]
    assert number is not None, name
    return outcome(machine, number, *arguments, sealed=sealed)


@pytest.mark.parametrize(("machine", "column"), MACHINES.items())
def test_every_rule_holds_and_what_has_none_is_not_there(machine: str, column: int) -> None:
    expected = {}
    for rule in seccomp.table()["syscalls"]:
        for name in rule["names"]:
            if name not in BY_ARGUMENT:
                expected[seccomp.numbers()[name][column]] = rule.get("errnoRet", 0)
    by_argument = {seccomp.numbers()[name][column] for name in BY_ARGUMENT}
    for number in (*range(1200), 0x3FFFFFFF):
        if number not in by_argument:
            assert outcome(machine, number) == expected.get(number, errno.ENOSYS), number


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_whose_arguments_count(machine: str) -> None:
    for name in ("socket", "socketpair"):
        assert [family for family in range(64) if call(machine, name, family) == 0] == [1, 2, 10, 16]
        assert {call(machine, name, family) for family in (17, 38, 40, 44)} == {errno.EAFNOSUPPORT}
    for flag in (0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert call(machine, "clone", flag | 0x11) == errno.ENOSYS, hex(flag)
    assert call(machine, "clone", 0x003D0F00) == call(machine, "clone", 0x11) == 0, "a thread and a process"
    assert [call(machine, "ioctl", 0, request) for request in (0x5412, 0x541C, 0x5401)] == [1, 1, 0]
    assert call(machine, "ioctl", 0, 0x1_0000_5412) == errno.EPERM, "the kernel reads the low half only"
    assert call(machine, "personality", 0xFFFFFFFF) == 0
    assert call(machine, "personality", 0x0040000) == errno.ENOSYS


def test_a_debugger_is_not_for_sealed() -> None:
    assert call("x86_64", "ptrace") == 0
    assert call("x86_64", "ptrace", sealed=True) == errno.ENOSYS


def test_other_architectures_are_refused() -> None:
    assert outcome("x86_64", 20, architecture=0x40000003) == -1, "32-bit calls have other numbers"
    assert outcome("x86_64", 0x40000000 + 39) == errno.ENOSYS, "x32"
    assert seccomp.program(sealed=False, machine="riscv64") is None
    assert all(entry["subArchitectures"] == [] for entry in seccomp.table()["archMap"])


def test_the_table_can_be_read() -> None:
    rules = seccomp.table()["syscalls"]
    assert all(rule["comment"] for rule in rules)
    counted = Counter(name for rule in rules for name in rule["names"])
    assert set(counted) == set(seccomp.numbers())
    assert {name for name, count in counted.items() if count > 1} <= BY_ARGUMENT, "a call has one reason"
