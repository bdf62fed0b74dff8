"""System calls that no sandbox may make, made from inside."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_magic import Sandbox
from sandbox_magic.engines import seccomp

PLACES = [
    ("docker", "sealed"),
    ("docker", "standard"),
    ("podman", "sealed"),
    ("podman", "standard"),
    ("bubblewrap", "sealed"),
    ("bubblewrap", "standard"),
]
# perl-base is on every Debian and Ubuntu, and can make any system call.
CALL = r"""perl -e 'my @with = map { $_ + 0 } @ARGV; my $done = syscall(shift @with, @with); """
CALL += r"""print $done < 0 ? "refused " . ($! + 0) : "done", "\n"; exit'"""
REFUSED = {
    "refused 1\n",
    "refused 38\n",
    "refused 97\n",
}  # EPERM, ENOSYS, EAFNOSUPPORT: a filter's; others are the call's

NEW_USER = 0x10000000
CALLS = {
    "io_uring": ("io_uring_setup", 1, 0),
    "io_uring, with a ring that is there": ("io_uring_enter", 0, 0, 0, 0, 0, 0),
    "a socket of the kernel's ciphers (AF_ALG)": ("socket", 38, 5, 0),
    "a socket to the hypervisor (AF_VSOCK)": ("socket", 40, 1, 0),
    "a socket of raw packets (AF_PACKET)": ("socket", 17, 3, 0),
    "a socket past the network's stack (AF_XDP)": ("socket", 44, 3, 0),
    "the same with bits that only some look at": ("socket", 38 | 1 << 32, 5, 0),
    "the session's keyring": ("keyctl", 0, -3, 0),
    "a new key": ("add_key", 0, 0, 0, 0, -3),
    "a key of somebody else": ("request_key", 0, 0, 0, -3),
    "a program in the kernel (bpf)": ("bpf", 0, 0, 0),
    "page faults handled outside the kernel (userfaultfd)": ("userfaultfd", 1),
    "the processor's counters (perf)": ("perf_event_open", 0, 0, -1, -1, 0),
    "a user namespace by unshare": ("unshare", NEW_USER),
    "a user namespace by clone": ("clone", NEW_USER | 17, 0, 0, 0, 0),
    "a user namespace by clone3": ("clone3", 0, 0),
    "a network namespace by unshare": ("unshare", 0x40000000),
    "another's namespace (setns)": ("setns", -1, 0),
    "a mount": ("mount", 0, 0, 0, 0, 0),
    "a mount by the newer calls": ("fsopen", 0, 0),
    "a tree of mounts": ("open_tree", -1, 0, 0),
    "a file by its number on the disk (shocker)": ("open_by_handle_at", -1, 0, 0),
    "a module of the kernel": ("finit_module", -1, 0, 0),
    "another kernel": ("kexec_load", 0, 0, 0, 0),
    "the kernel's log": ("syslog", 10, 0, 0),
    "the machine's name": ("sethostname", 0, 0),
    "where memory lies": ("move_pages", 0, 0, 0, 0, 0, 0),
    "a call that is newer than the table": (5000,),
}
DEBUGGER = {
    "to trace itself": ("ptrace", 0, 0, 0, 0),
    "another's memory": ("process_vm_readv", 1, 0, 0, 0, 0, 0),
}


@pytest.fixture(scope="module", params=PLACES, ids="-".join)
def box(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    engine, profile = request.param
    with Sandbox(engine=engine, profile=profile) as made:
        yield made


def made(box: Sandbox, *call: str | int) -> str:
    """Make a call inside; say what came of it."""
    name, *arguments = call
    machine = {"x86_64": 0, "aarch64": 1}[os.uname().machine]
    number = seccomp.numbers()[name][machine] if isinstance(name, str) else name
    return box.run(f"{CALL} {number} {' '.join(map(str, arguments))}").stdout


def each(calls: dict[str, tuple[Any, ...]]) -> pytest.MarkDecorator:
    """Run a test with each of the calls, as an attempt of its own."""
    marked = [
        pytest.param(call, marks=pytest.mark.attack("system calls", what), id=what) for what, call in calls.items()
    ]
    return pytest.mark.parametrize("call", marked)


@each(CALLS)
def test_a_call_that_is_refused(box: Sandbox, call: tuple[str | int, ...]) -> None:
    assert made(box, *call) in REFUSED


@each(DEBUGGER)
@pytest.mark.parametrize("box", [place for place in PLACES if "sealed" in place], ids="-".join, indirect=True)
def test_a_debugger_is_not_for_sealed(box: Sandbox, call: tuple[str | int, ...]) -> None:
    assert made(box, *call) in REFUSED


def test_calls_of_everyday_pass(box: Sandbox) -> None:
    """The other tests would pass too if nothing could be called."""
    if box.spec.profile == "standard":
        assert made(box, "ptrace", 0, 0, 0, 0) == "done\n", "a debugger"
    for call in (("getpid",), ("socket", 1, 1, 0), ("socket", 2, 1, 0), ("socket", 10, 1, 0), ("socket", 16, 3, 0)):
        assert made(box, *call) == "done\n", call


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the program is of x86")
@pytest.mark.attack("system calls", "a call of 32 bits, by int 0x80")
def test_the_calls_of_another_architecture(box: Sandbox, tmp_path: Path) -> None:
    begin, program = 0x400000, bytes.fromhex("b801000000 bb07000000 cd80")  # exit(7) of i386
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, begin + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = len(program) + 120
    (tmp_path / "old").write_bytes(header + struct.pack("<IIQQQQQQ", 1, 5, 0, begin, begin, size, size, 4096) + program)
    box.put(tmp_path / "old", "/tmp/old")
    result = box.run("chmod +x /tmp/old && /tmp/old")
    assert result.exit_code == 128 + 31, f"{result.exit_code}: not ended by SIGSYS"
