"""The protocol without any shell: what a shell would print is written down here, and cut in every way."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire import fence

from sandbox_magic.errors import InvalidOptions, ProtocolError
from sandbox_magic.protocol import (
    Died,
    Event,
    Exited,
    Finished,
    Initialized,
    LateOutput,
    Output,
    Ready,
    ShellProtocol,
    Started,
    State,
)
from sandbox_magic.shell.lines import octal, start_argv
from sandbox_magic.testing import protocol_cases

CASES = protocol_cases()
CHUNKS = [1, 2, 3, 5, 4096]


class Shell:
    """Speaks the other side of the wire, from the lines it is sent."""

    def __init__(self, shell: str = "bash") -> None:
        self.protocol = ShellProtocol()
        self.prefix = self.protocol.boot().strip()
        self.aside = b"\x1e" + self.prefix + b"0" * 8
        self.events: list[Event] = []
        self.feed("stdout", self.aside + b" ready 7 " + shell.encode() + b"\n")
        self.protocol.start()
        self.feed("stdout", self.aside + b" init 17 \n")

    def send(self, code: str = "true", *, soon: bool = False) -> bytes:
        return fence(self.protocol.send(code, soon=soon), b"\x1e" + self.prefix)

    def feed(self, stream: str, data: bytes, chunk: int = 4096) -> None:
        for at in range(0, len(data), chunk):
            self.events += self.protocol.receive(stream, data[at : at + chunk])

    def take(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if type(event) is kind]

    def text(self, stream: str, kind: type[Output] = Output) -> bytes:
        return b"".join(event.data for event in self.take(kind) if event.stream == stream)  # type: ignore[union-attr]

    def run(self, stdout: bytes, stderr: bytes, code: int, chunk: int) -> None:
        self.events = []
        fence = self.send()
        self.feed("stdout", fence + b" begin\n" + stdout + fence + b" end %d himB\n" % code, chunk)
        self.feed("stderr", fence + b" begin\n" + stderr + fence + b" end\n", chunk)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_every_case_at_every_split(case: dict, chunk: int) -> None:
    shell = Shell()
    for expect in case["expect"]:
        stdout = base64.b64decode(expect.get("stdout_b64", "")) or (expect.get("stdout") or "").encode()
        stderr = (expect.get("stderr") or expect.get("stderr_contains") or "").encode()
        shell.run(stdout, stderr, expect["exit"] or 0, chunk)
        assert shell.text("stdout") == stdout
        assert shell.text("stderr") == stderr
        assert shell.take(Finished) == [Finished(expect["exit"] or 0)]
        assert shell.take(LateOutput) == []


@given(
    st.lists(st.sampled_from([b"", b"\x1e", b"text\n", b"\x1e\x1e", b"PREFIX", b"\x1ePREFI", bytes(range(256))])),
    st.sampled_from(CHUNKS),
    st.integers(0, 255),
)
def test_output_that_imitates_fences_survives(pieces: list[bytes], chunk: int, code: int) -> None:
    shell = Shell()
    data = b"".join(pieces).replace(b"PREFIX", shell.prefix)
    # All but the whole secret; the mark keeps what follows from completing it.
    data = data.replace(b"\x1e" + shell.prefix, b"\x1e" + shell.prefix[:-1] + b"!")
    shell.run(data, data, code, chunk)
    assert shell.text("stdout") == shell.text("stderr") == data
    assert shell.take(Finished) == [Finished(code)]


@given(st.binary(max_size=300), st.binary(max_size=300), st.lists(st.integers(1, 40), min_size=1))
def test_any_bytes_at_any_split(late: bytes, output: bytes, cuts: list[int]) -> None:
    shell = Shell()
    shell.events = []
    fence = shell.send()
    wire = late + fence + b" begin\n" + output + fence + b" end 3 h\n"
    at = turn = 0
    while at < len(wire):
        step = cuts[turn % len(cuts)]
        shell.feed("stdout", wire[at : at + step])
        at, turn = at + step, turn + 1
    shell.feed("stderr", fence + b" begin\n" + fence + b" end\n")
    assert (shell.text("stdout", LateOutput), shell.text("stdout")) == (late, output)
    assert shell.take(Finished) == [Finished(3)]


def test_finished_waits_for_both_streams() -> None:
    shell = Shell()
    fence = shell.send()
    shell.feed("stdout", fence + b" begin\n" + fence + b" end 0 h\n")
    assert shell.take(Finished) == []
    assert shell.protocol.state is State.RUNNING
    shell.feed("stderr", fence + b" begin\nlast words" + fence + b" end\n")
    assert shell.text("stderr") == b"last words"
    assert shell.take(Finished) == [Finished(0)]
    assert shell.take(Started) == [Started()]


def test_a_fence_that_comes_twice_is_not_shown() -> None:
    """An interrupt inside the report makes the shell report again."""
    shell = Shell()
    fence = shell.send()
    end = fence + b" end 130 h\n"
    shell.feed("stdout", fence + b" begin\n" + end + end)
    shell.feed("stderr", fence + b" begin\n" + fence + b" end\n")
    shell.feed("stdout", end)
    shell.send()
    shell.feed("stdout", end)
    assert shell.take(Finished) == [Finished(130)]
    assert shell.take(Output) == shell.take(LateOutput) == []


def test_late_output_is_apart_and_the_greeting_is_dropped() -> None:
    protocol = ShellProtocol()
    assert protocol.receive("stderr", b"bash: no job control in this shell\n") == []
    shell = Shell()
    shell.feed("stdout", b"job done\n")
    assert shell.text("stdout", LateOutput) == b"job done\n"
    assert shell.take(Output) == []


def test_the_death_of_the_shell_ends_the_cell() -> None:
    shell = Shell()
    fence = shell.send("exit 3")
    shell.feed("stdout", fence + b" begin\na\n" + shell.aside + b" dead 3\n")
    assert shell.take(Died) == []
    shell.feed("stderr", fence + b" begin\n" + shell.aside + b" dead\n")
    assert shell.take(Died) == [Died(3)]
    assert shell.text("stdout") == b"a\n"
    with pytest.raises(ProtocolError):
        shell.protocol.send("true")
    assert shell.protocol.start().startswith(b"start " + shell.prefix + b"00000000\n")
    shell.feed("stdout", shell.aside + b" init 18 restored\n")
    assert shell.take(Initialized)[-1] == Initialized(18, True)


def test_an_exit_code_that_the_shell_could_not_report_is_unknown() -> None:
    shell = Shell()
    shell.send("ulimit -n 3")
    shell.feed("stdout", shell.aside + b" dead \n")
    shell.feed("stderr", shell.aside + b" dead\n")
    assert shell.take(Died) == [Died(None)]


@pytest.mark.parametrize("held", [b"", b"rest", b"\x1e", b"\x1eabc"])
def test_the_end_of_the_stream_gives_back_what_was_held(held: bytes) -> None:
    shell = Shell()
    fence = shell.send()
    shell.feed("stdout", fence + b" begin\n" + held)
    shell.events += shell.protocol.receive("stdout", b"")
    assert shell.text("stdout") == held
    assert shell.take(Exited) == []
    shell.events += shell.protocol.receive("stderr", b"")
    assert shell.take(Exited) == [Exited()]
    assert shell.protocol.state is State.CLOSED


def test_a_fence_without_end_is_refused_and_bounded() -> None:
    shell = Shell()
    fence = shell.send()
    with pytest.raises(ProtocolError, match="no end"):
        shell.feed("stdout", fence + b" begin " + b"x" * 10_000, 7)


@pytest.mark.parametrize("facts", [b" end\n", b" end x\n", b" end 99999999999\n", b" end --1\n"])
def test_a_fence_with_nonsense_is_refused(facts: bytes) -> None:
    shell = Shell()
    fence = shell.send()
    shell.feed("stderr", fence + b" begin\n" + fence + b" end\n")
    with pytest.raises(ProtocolError):
        shell.feed("stdout", fence + b" begin\n" + fence + facts)


def test_buffers_stay_small() -> None:
    shell = Shell()
    shell.feed("stdout", shell.send() + b" begin\n")
    for _ in range(50):
        shell.feed("stdout", b"\x1e" * 100_000, 100_000)
        shell.events.clear()
    assert len(shell.protocol._streams[0, "stdout"].buffer) < 64


def test_a_sandbox_without_a_writable_folder_says_so() -> None:
    protocol = ShellProtocol()
    with pytest.raises(ProtocolError, match="no writable folder"):
        protocol.receive("stdout", b"\x1e" + protocol.boot().strip() + b"00000000 nowhere\n")


def test_a_cell_right_after_one_without_jobs_has_no_begin_fences() -> None:
    shell = Shell()
    fence = shell.send()
    shell.feed("stdout", fence + b" begin\n" + fence + b" end 0 h tok 0quiet\n")
    shell.feed("stderr", fence + b" begin\n" + fence + b" end\n")
    fence = shell.send(soon=True)
    assert shell.protocol.state is State.RUNNING
    shell.feed("stderr", b"err\n" + fence + b" end\nlate\n")
    shell.feed("stdout", b"out\n" + fence + b" end 3 h tok 0quiet\n")
    assert (shell.text("stdout"), shell.text("stderr")) == (b"out\n", b"err\n")
    assert shell.text("stderr", LateOutput) == b"late\n"
    assert shell.take(Finished) == [Finished(0), Finished(3)]


@pytest.mark.parametrize(
    ("facts", "soon"), [(b"0 h tok 099", True), (b"0 h tok 1quiet", True), (b"0 h", True), (b"0 h tok 0quiet", False)]
)
def test_else_it_has(facts: bytes, soon: bool) -> None:
    shell = Shell()
    fence = shell.send()
    shell.feed("stdout", fence + b" begin\n" + fence + b" end " + facts + b"\n")
    shell.feed("stderr", fence + b" begin\n" + fence + b" end\n")
    fence = shell.send(soon=soon)
    assert shell.protocol.state is State.SENT
    shell.feed("stderr", b"of a job\n" + fence + b" begin\nmine\n")
    assert shell.text("stderr", LateOutput) == b"of a job\n"
    assert shell.text("stderr") == b"mine\n"


def test_a_new_shells_first_cell_has_begin_fences() -> None:
    shell = Shell()
    fence = shell.send()
    shell.feed("stdout", fence + b" begin\n" + fence + b" end 0 h tok 0quiet\n" + shell.aside + b" dead 3\n")
    shell.feed("stderr", fence + b" begin\n" + fence + b" end\n" + shell.aside + b" dead\n")
    shell.protocol.start()
    shell.send(soon=True)
    assert shell.protocol.state is State.SENT


def test_tokens_are_fresh() -> None:
    shell = Shell()
    seen = set()
    for _ in range(100):
        fence = shell.send()
        shell.feed("stdout", fence + b" begin\n" + fence + b" end 0 h\n")
        shell.feed("stderr", fence + b" begin\n" + fence + b" end\n")
        seen.add(fence)
    assert len(seen) == 100


@pytest.mark.parametrize("shell", ["bash", "/usr/bin/bash", "sh", "/bin/ash"])
def test_lines_are_filled_in(shell: str) -> None:
    peer = Shell(shell)
    line = peer.protocol.send("echo 'it''s @TEXT@'")
    assert b"@FD@" not in line
    assert b"@TOKEN@" not in line
    assert b"/proc/7/fd/" in line
    assert rb"0 echo '\''it'\'''\''s @TEXT@'\''" in line


def test_options_that_would_show_our_lines_are_put_back_for_the_cell() -> None:
    shell = Shell()
    fence = shell.send("set -x")
    shell.feed("stdout", fence + b" begin\n" + fence + b" end 0 himxB\n")
    shell.feed("stderr", fence + b" begin\n" + fence + b" end\n")
    assert rb"\builtin set -x;echo z" in shell.protocol.send("echo z")


def test_the_last_exit_code_travels_with_the_next_cell() -> None:
    shell = Shell()
    shell.run(b"", b"", 42, 4096)
    assert b"42 echo $?" in shell.protocol.send("echo $?")


def test_nul_is_refused() -> None:
    with pytest.raises(InvalidOptions, match="NUL"):
        Shell().protocol.send("echo \0")


def test_one_cell_at_a_time() -> None:
    shell = Shell()
    shell.send()
    with pytest.raises(ProtocolError):
        shell.protocol.send("true")


@given(st.binary())
def test_octal_is_safe_between_quotes(data: bytes) -> None:
    text = octal(data)
    assert b"'" not in text
    assert re.sub(rb"\\0(\d{3})", lambda match: bytes([int(match[1], 8)]), text) == data


def test_the_supervisor_gets_no_secret_in_its_arguments() -> None:
    protocol = ShellProtocol()
    assert protocol.boot().strip().decode() not in " ".join(start_argv("name"))
    assert Ready(7, "bash").pid == 7
