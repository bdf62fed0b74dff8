"""Which system calls a bubblewrap sandbox may not make, as data with reasons; and the program that the kernel runs.

The program is classic BPF (`man 2 seccomp`): it gets the number, the architecture and the arguments of a call. What is
not named passes: a list of what is allowed would have to follow every new kernel and C library.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Iterable
from dataclasses import dataclass

# name: (number on x86_64, number on aarch64); None where it does not exist. From the kernel's unistd.h.
_NUMBERS: dict[str, tuple[int | None, int | None]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "clone3": (435, 435),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "modify_ldt": (154, None),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "uselib": (134, None),
    "userfaultfd": (323, 282),
    "ustat": (136, None),
    "vhangup": (153, 58),
}


@dataclass(frozen=True, slots=True)
class Rule:
    """Calls that fail, with the error that they fail with, and why."""

    why: str
    calls: tuple[str, ...]
    error: int = errno.EPERM


RULES = (
    Rule("io_uring does its work past this very filter, and has had more holes than any other call",
         ("io_uring_setup", "io_uring_enter", "io_uring_register"), errno.ENOSYS),
    Rule("its flags lie in memory, where no filter can look: without it the C library uses clone, which is looked at",
         ("clone3",), errno.ENOSYS),
    Rule("keyrings are not part of any namespace", ("add_key", "keyctl", "request_key")),
    Rule("programs in the kernel, and a look into it", ("bpf", "perf_event_open", "kcmp", "lookup_dcookie", "syslog")),
    Rule("a page fault handled outside the kernel makes races in the kernel easy to win", ("userfaultfd",)),
    Rule("new namespaces open parts of the kernel that only root reached before", ("unshare", "setns")),
    Rule("mounts are made; none is to be added or changed",
         ("mount", "umount2", "pivot_root", "move_mount", "open_tree", "fsopen", "fsconfig", "fsmount", "fspick",
          "mount_setattr", "open_by_handle_at", "fanotify_init")),
    Rule("the machine is the host's",
         ("acct", "clock_adjtime", "clock_settime", "delete_module", "finit_module", "init_module", "ioperm", "iopl",
          "kexec_file_load", "kexec_load", "move_pages", "quotactl", "quotactl_fd", "reboot", "setdomainname",
          "sethostname", "settimeofday", "swapoff", "swapon", "vhangup")),
    Rule("old, with holes in its history, and used by nothing", ("modify_ldt", "uselib", "ustat")),
)  # fmt: skip
# A debugger is of use in a class or at work, and sees only what has the same user id; not in `sealed`.
SEALED = Rule("a process looks into another one", ("ptrace", "process_vm_readv", "process_vm_writev"))

# UNIX, IPv4, IPv6 and NETLINK; not ALG, VSOCK, PACKET, and the many that no program here needs.
_FAMILIES = (1, 2, 10, 16)
_SOCKETS = {"socket": (41, 198), "socketpair": (53, 199)}
_CLONE, _NEW_USER = (56, 220), 0x10000000
_IOCTL, _TYPE_INTO_A_TERMINAL = (16, 29), (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
_PERSONALITY = (135, 92)
_PERSONALITIES = (0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)  # as Docker's profile: Linux, and asking

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32 = 0x40000000  # the other interface of x86_64, whose numbers begin here

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000

Code = list[tuple[int, int, int, int]]


def program(*, sealed: bool, machine: str | None = None) -> bytes | None:
    """Return the filter for the kernel; `None` for a machine whose numbers we do not have."""
    machine = machine or platform.machine()
    if machine not in _ARCHITECTURES:
        return None
    column, architecture = _ARCHITECTURES[machine]
    code: Code = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL)]
    code += [(_LOAD, 0, 0, _NUMBER)]
    if machine == "x86_64":
        code += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _ERROR | errno.ENOSYS)]
    for rule in (*RULES, SEALED) if sealed else RULES:
        for call in rule.calls:
            if (number := _NUMBERS[call][column]) is not None:
                code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERROR | rule.error)]
    for numbers in _SOCKETS.values():
        code += _only(numbers[column], 0, _FAMILIES, errno.EAFNOSUPPORT)
    code += _only(_PERSONALITY[column], 0, _PERSONALITIES, errno.EPERM)
    refuse = (_RETURN, 0, 0, _ERROR | errno.EPERM)
    code += _looking_at(_CLONE[column], 0, [(_ANY_BIT, 0, 1, _NEW_USER), refuse])
    typing = [step for request in _TYPE_INTO_A_TERMINAL for step in ((_EQUAL, 0, 1, request), refuse)]
    code += _looking_at(_IOCTL[column], 1, typing)
    code += [(_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("=HBBI", *step) for step in code)


def _looking_at(number: int, argument: int, steps: Iterable[tuple[int, int, int, int]]) -> Code:
    """Return what runs `steps` with the low half of an argument of one call, which is allowed if they say nothing."""
    inner = [(_LOAD, 0, 0, _ARGUMENTS + 8 * argument), *steps, (_RETURN, 0, 0, _ALLOW)]
    return [(_EQUAL, 0, len(inner), number), *inner]


def _only(number: int, argument: int, values: Iterable[int], error: int) -> Code:
    """Return what lets one call pass with these values of an argument only."""
    steps = [step for value in values for step in ((_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW))]
    return _looking_at(number, argument, [*steps, (_RETURN, 0, 0, _ERROR | error)])
