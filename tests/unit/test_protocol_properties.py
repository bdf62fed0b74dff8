"""The protocol against arbitrary bytes at arbitrary places: what is true is exact, what is a lie is harmless."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from wire import fence

from sandbox_magic.errors import ProtocolError
from sandbox_magic.protocol import (
    STDERR,
    STDOUT,
    STREAMS,
    Died,
    Event,
    Exited,
    Finished,
    Initialized,
    LateOutput,
    Output,
    ShellProtocol,
    Started,
    State,
)

HELD_MAX = 1 + 16 + 8 + 160  # bytes of a fence


class Peer:
    """The other side of the wire, which also keeps what came out of ours."""

    def __init__(self, shell: bytes = b"bash") -> None:
        self.protocol = ShellProtocol()
        self.events: list[Event] = []
        self.marker = b"\x1e" + self.protocol.boot().strip()
        self.aside = self.marker + b"0" * 8
        self.feed(STDOUT, self.aside + b" ready 7 " + shell + b"\n")
        self.protocol.start()
        self.feed(STDOUT, self.aside + b" init 17 \n")
        self.events.clear()

    def send(self) -> bytes:
        return fence(self.protocol.send("true"), self.marker)

    def feed(self, stream: str, data: bytes) -> None:
        self.events += self.protocol.receive(stream, data)
        for held in self.protocol._streams.values():
            assert len(held.buffer) <= HELD_MAX

    def text(self, stream: str, kind: type[Output]) -> bytes:
        return b"".join(event.data for event in self.events if type(event) is kind and event.stream == stream)

    def facts(self) -> list[Event]:
        return [event for event in self.events if not isinstance(event, Output)]


@st.composite
def interleavings(draw: st.DrawFn, wires: dict[str, bytes]) -> list[tuple[str, bytes]]:
    """Cut two streams anywhere and bring the pieces in any order that keeps each stream's own."""
    left = dict(wires)
    sizes = itertools.cycle(draw(st.lists(st.one_of(st.integers(1, 3), st.integers(1, 400)), min_size=1, max_size=6)))
    turns = itertools.cycle(draw(st.lists(st.sampled_from(STREAMS), min_size=1, max_size=6)))
    chunks = []
    while any(left.values()):
        wanted = next(turns)
        stream = wanted if left[wanted] else next(name for name in STREAMS if left[name])
        size = next(sizes)
        chunks.append((stream, left[stream][:size]))
        left[stream] = left[stream][size:]
    return chunks


@dataclass(frozen=True)
class Lie:
    """Bytes that look like ours, with placeholders for what is drawn anew for each session and cell."""

    text: bytes

    def told(self, peer: Peer, fence: bytes) -> bytes:
        token = fence[len(peer.marker) :]
        other = b"%08x" % (int(token, 16) ^ 0x5A5A5A5A or 1)
        return (
            self.text.replace(b"<OTHER>", peer.marker + other)
            .replace(b"<WRONG>", peer.marker[:-1] + (b"1" if peer.marker.endswith(b"0") else b"0") + token)
            .replace(b"<SHORT>", peer.marker[:-1])
        )


# None of these may be understood. <OTHER> has the right prefix and another cell's token: it is dropped, as the second
# fence of an interrupted cell is. The others are output.
harmless = st.sampled_from(
    [b"\x1e", b"\x1e\x1e", b"<WRONG> end 9 h\n", b"<WRONG> begin\n", b"<SHORT>!", b"<SHORT>\n", b"\x1e0123456789abcdef"]
)
dropped = st.sampled_from([b"<OTHER> end 9 h\n", b"<OTHER> end\n", b"<OTHER> begin\n", b"<OTHER> \xff\n", b"<OTHER>\n"])
plain = st.one_of(st.binary(max_size=40), st.sampled_from([b"end 0 h\n", b" dead 3\n", b"\n", b"x" * 500]))


@st.composite
def outputs(draw: st.DrawFn) -> list[tuple[bytes, bool]]:
    """Return pieces of what a cell prints, each with whether it is to be seen."""
    shown = st.tuples(st.one_of(plain, harmless), st.just(True))
    return draw(st.lists(st.one_of(shown, st.tuples(dropped, st.just(False))), max_size=8))


def wire(peer: Peer, fence: bytes, pieces: list[tuple[bytes, bool]]) -> tuple[bytes, bytes]:
    """Return the bytes, and those of them that are output."""
    told = [(Lie(text).told(peer, fence), seen) for text, seen in pieces]
    # A piece that is shown may begin the marker by chance, and the next complete it: a mark keeps them apart.
    marked = [(text + b"." if seen else text, seen) for text, seen in told]
    return b"".join(text for text, _ in marked), b"".join(text for text, seen in marked if seen)


@given(st.data(), outputs(), outputs(), outputs(), outputs(), st.integers(0, 255))
def test_two_cells_are_exact_whatever_they_print_and_however_it_arrives(
    data: st.DataObject,
    stdout: list[tuple[bytes, bool]],
    stderr: list[tuple[bytes, bool]],
    late: list[tuple[bytes, bool]],
    again: list[tuple[bytes, bool]],
    code: int,
) -> None:
    peer = Peer()
    for pieces in (stdout, again):
        peer.events.clear()
        fence = peer.send()
        out, shown = wire(peer, fence, pieces)
        err, shown_err = wire(peer, fence, stderr)
        before, late_shown = wire(peer, fence, late)
        wires = {
            STDOUT: before + fence + b" begin\n" + out + fence + b" end %d himB\n" % code,
            STDERR: fence + b" begin\n" + err + fence + b" end\n",
        }
        for stream, chunk in data.draw(interleavings(wires)):
            peer.feed(stream, chunk)
        assert peer.text(STDOUT, Output) == shown
        assert peer.text(STDERR, Output) == shown_err
        assert peer.text(STDOUT, LateOutput) == late_shown
        assert peer.facts() == [Started(), Finished(code)]
        assert peer.protocol.last_exit_code == code


@given(st.data(), outputs(), st.lists(st.sampled_from([b" end 7 h\n", b" begin\n", b"\n", b" end\n", b" what\n"])))
def test_fences_of_the_cell_itself_may_come_again_after_its_end(
    data: st.DataObject, pieces: list[tuple[bytes, bool]], more: list[bytes]
) -> None:
    """An interrupt in the middle of a report makes the shell report twice; a begin after the end opens nothing new."""
    peer = Peer()
    fence = peer.send()
    out, shown = wire(peer, fence, pieces)
    end = fence + b" end 3 h\n"
    wires = {
        STDOUT: fence + b" begin\n" + out + end + b"".join(fence + text for text in more) + b"late",
        STDERR: fence + b" begin\n" + fence + b" end\n" + fence + b" end\n",
    }
    for stream, chunk in data.draw(interleavings(wires)):
        peer.feed(stream, chunk)
    assert peer.text(STDOUT, Output) == shown
    assert peer.text(STDOUT, LateOutput) == b"late"
    assert peer.facts() == [Started(), Finished(3)]
    assert peer.send() != fence


@given(st.data(), outputs(), st.none() | st.integers(0, 255))
def test_the_death_of_a_shell_is_exact_too(
    data: st.DataObject, pieces: list[tuple[bytes, bool]], code: int | None
) -> None:
    """A supervisor that does not know the code says none (0081): 159 is a code like any other."""
    peer = Peer()
    fence = peer.send()
    out, shown = wire(peer, fence, pieces)
    wires = {
        STDOUT: fence + b" begin\n" + out + peer.aside + (b" dead \n" if code is None else b" dead %d\n" % code),
        STDERR: fence + b" begin\n" + peer.aside + b" dead\n",
    }
    for stream, chunk in data.draw(interleavings(wires)):
        peer.feed(stream, chunk)
    assert peer.text(STDOUT, Output) == shown
    assert peer.facts() == [Started(), Died(code)]
    assert peer.protocol.state is State.DEAD


@given(st.data(), outputs(), st.integers(0, 400))
def test_a_stream_that_ends_anywhere_shows_nothing_of_ours(
    data: st.DataObject, pieces: list[tuple[bytes, bool]], at: int
) -> None:
    peer = Peer()
    fence = peer.send()
    out, shown = wire(peer, fence, pieces)
    whole = fence + b" begin\n" + out + fence + b" end 3 h\n"
    wires = {STDOUT: whole[: min(at, len(whole) - 1)], STDERR: fence + b" begin\n"}
    for stream, chunk in data.draw(interleavings(wires)):
        peer.feed(stream, chunk)
    for stream in data.draw(st.permutations(STREAMS)):
        peer.feed(stream, b"")
    seen = peer.text(STDOUT, Output)
    # The beginning of a marker may as well be output; more than that is known to be ours.
    assert shown.startswith((seen, re.sub(rb"\x1e[0-9a-f]{0,15}\Z", b"", seen)))
    assert peer.facts()[-1] == Exited()
    assert not any(isinstance(event, Finished) for event in peer.events)
    assert peer.protocol.state is State.CLOSED


LIES = [
    *(b" end\n", b" end x h\n", b" end 1\n", b" begin\n", b" begin", b"\n", b" end 99999999999 h\n", b" end -1 h\n"),
    *(b" end 0 \xff\xfe\n", b" end 0 " + b"h" * 150 + b"\n", b" " + b"x" * 400, b" end 0 h h h h\n", b" \0\n"),
]
ASIDES = [
    *(b" ready 8 sh\n", b" ready x sh\n", b" init 9 restored\n", b" init\n", b" init x\n", b" full\n", b" dead 1\n"),
    *(b" dead x\n", b" dead\n", b" nowhere\n", b" what 1 2 3\n", b"\n", b" ready 8 /bin/\xff\n", b" dead 1 2 3\n"),
]


@given(
    st.data(),
    st.lists(st.one_of(plain, st.sampled_from(LIES), st.sampled_from(ASIDES)), max_size=20),
    st.lists(st.sampled_from(["token", "aside", "plain"]), max_size=20),
)
def test_a_liar_who_knows_every_secret_costs_a_session_at_most(
    data: st.DataObject, pieces: list[bytes], kinds: list[str]
) -> None:
    """Whatever comes: known events, or a `ProtocolError`; and what is kept back is bounded (see `Peer.feed`)."""
    peer = Peer()
    fence = peer.send()
    heads = {"token": fence, "aside": peer.aside, "plain": b""}
    text = b"".join(heads[kind] + piece for kind, piece in zip(kinds, pieces, strict=False))
    cut = data.draw(st.integers(0, len(text)))
    try:
        for stream, chunk in data.draw(interleavings({STDOUT: text[:cut], STDERR: text[cut:]})):
            peer.feed(stream, chunk)
        for stream in STREAMS:
            peer.feed(stream, b"")
    except ProtocolError:
        return
    assert peer.facts()[-1] == Exited()
    finished = [event for event in peer.events if isinstance(event, Finished)]
    assert len(finished) <= 1
    assert all(0 <= event.exit_code < 10**9 for event in finished)


@given(st.lists(st.tuples(st.sampled_from(STREAMS), st.binary(max_size=200)), max_size=30))
def test_arbitrary_bytes_before_anything_is_known_are_no_events(chunks: list[tuple[str, bytes]]) -> None:
    """What is not ours is dropped before the shell has its settings: it is its greeting."""
    protocol = ShellProtocol()
    events = [event for stream, data in chunks if data for event in protocol.receive(stream, data)]
    assert events == []
    assert protocol.state is State.STARTING


@given(st.binary(max_size=300), st.integers(1, 50))
def test_a_restart_begins_anew(garbage: bytes, size: int) -> None:
    """Half a fence of the dead shell does not spoil the first of the next one's."""
    peer = Peer()
    fence = peer.send()
    peer.feed(STDOUT, fence + b" begin\n" + garbage.replace(b"\x1e", b""))
    peer.feed(STDERR, fence + b" begin\n")
    text = peer.aside + b" dead 1\n"
    for at in range(0, len(text), size):
        peer.feed(STDOUT, text[at : at + size])
    peer.feed(STDERR, peer.aside + b" dead\n")
    peer.protocol.start()
    peer.feed(STDOUT, peer.aside + b" init 18 restored\n")
    assert peer.facts()[-1] == Initialized(18, True)
    again = peer.send()
    peer.feed(STDOUT, fence + b" end 0 h\n")  # what the dead shell said late
    peer.feed(STDOUT, again + b" begin\nx" + again + b" end 4 h\n")
    peer.feed(STDERR, again + b" begin\n" + again + b" end\n")
    assert peer.facts()[-1] == Finished(4)
