"""The filter of system calls, run as the kernel runs it."""

from __future__ import annotations

import errno
import struct

import pytest

from sandbox_magic.engines import seccomp

ALLOW, KILL = 0x7FFF0000, 0x80000000
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


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
        elif operation == 0x06:
            return {ALLOW: 0, KILL: -1}.get(operand, operand & 0xFFFF)
        else:
            holds = {0x15: value == operand, 0x35: value >= operand, 0x45: bool(value & operand)}[operation]
            at += if_true if holds else if_false


@pytest.mark.parametrize(("machine", "column"), [("x86_64", 0), ("aarch64", 1)])
def test_every_rule_holds_and_nothing_else_is_lost(machine: str, column: int) -> None:
    refused = {}
    for rule in seccomp.RULES:
        for call in rule.calls:
            if (number := seccomp._NUMBERS[call][column]) is not None:
                refused[number] = rule.error
    looked_at = {pair[column] for pair in (*seccomp._SOCKETS.values(), seccomp._PERSONALITY)}
    for number in range(480):
        if number not in looked_at:
            assert outcome(machine, number) == refused.get(number, 0), number


@pytest.mark.parametrize(("machine", "column"), [("x86_64", 0), ("aarch64", 1)])
def test_calls_whose_arguments_count(machine: str, column: int) -> None:
    for pair in seccomp._SOCKETS.values():
        allowed = [family for family in range(64) if outcome(machine, pair[column], family) == 0]
        assert allowed == [1, 2, 10, 16]
        assert outcome(machine, pair[column], 38) == errno.EAFNOSUPPORT
    assert outcome(machine, seccomp._CLONE[column], 0x10000011) == errno.EPERM
    assert outcome(machine, seccomp._CLONE[column], 0x11) == 0
    assert [outcome(machine, seccomp._IOCTL[column], 0, request) for request in (0x5412, 0x541C, 0x5401)] == [1, 1, 0]
    assert outcome(machine, seccomp._PERSONALITY[column], 0xFFFFFFFF) == 0
    assert outcome(machine, seccomp._PERSONALITY[column], 0x0040000) == errno.EPERM


def test_a_debugger_is_not_for_sealed() -> None:
    assert outcome("x86_64", 101) == 0
    assert outcome("x86_64", 101, sealed=True) == errno.EPERM


def test_other_architectures_are_refused() -> None:
    assert outcome("x86_64", 20, architecture=0x40000003) == -1, "32-bit calls have other numbers"
    assert outcome("x86_64", 0x40000000 + 39) == errno.ENOSYS, "x32"
    assert seccomp.program(sealed=False, machine="riscv64") is None


def test_every_number_has_a_rule() -> None:
    named = {call for rule in (*seccomp.RULES, seccomp.SEALED) for call in rule.calls}
    assert named == set(seccomp._NUMBERS)
    assert all(rule.why for rule in seccomp.RULES)
