from __future__ import annotations

import os
import stat
import tarfile
from pathlib import Path

import pytest
from tar_corpus import (
    END,
    HOSTILE,
    MAX_BYTES,
    MAX_DEPTH,
    MAX_FILES,
    by_tarfile,
    long_name,
    member,
    names,
    pax,
    snapshot,
    unpack,
)

from sandbox_magic.archive import Unpacker, pack
from sandbox_magic.errors import TransferError

CHUNKS = [1, 513, 65536]


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A target with traps in it, and beside it what must never change."""
    outside = tmp_path / "outside"
    (outside / "folder").mkdir(parents=True)
    (outside / "secret.txt").write_text("secret")
    target = tmp_path / "target"
    (target / "sub").mkdir(parents=True)
    (target / "keep.txt").write_text("keep")
    (target / "replaced.txt").write_text("old")
    (target / "sub" / "old.txt").write_text("old")
    (target / "folder-link").symlink_to(outside / "folder")
    (target / "file-link").symlink_to(outside / "secret.txt")
    (target / "dangling").symlink_to(outside / "new.txt")
    (target / "sub" / "up").symlink_to("..")
    os.mkfifo(target / "fifo")
    return tmp_path


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_refused_and_changes_nothing(world: Path, case: str, chunk: int) -> None:
    archive, message = HOSTILE[case]
    if chunk == 1 and len(archive) > 20_000:
        chunk = 511
    before = snapshot(world)
    for good in (b"", member(b"first/good.txt", b"good") + member(b"replaced.txt", b"new")):
        with pytest.raises(TransferError, match=message) as caught:
            unpack(
                world / "target",
                good + archive + END,
                chunk,
                max_bytes=MAX_BYTES + 7 * bool(good),
                max_files=MAX_FILES + 3 * bool(good),
                max_depth=MAX_DEPTH,
            )
        assert str(caught.value).isprintable(), "a message must not carry the archive's control characters"
        assert len(str(caught.value)) < 700
        assert snapshot(world) == before


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_cut_at_any_place_keeps_nothing(world: Path, chunk: int) -> None:
    archive = long_name(b"n" * 120) + member(b"a", b"x" * 700) + member(b"d/keep.txt", b"y") + END
    before = snapshot(world)
    for length in range(0, len(archive), 97):
        with pytest.raises(TransferError, match="cut off"):
            unpack(world / "target", archive[:length], chunk)
        assert snapshot(world) == before


@pytest.mark.parametrize("chunk", CHUNKS)
def test_what_is_harmless_is_written(world: Path, chunk: int) -> None:
    archive = (
        member(b"./", kind=b"5")
        + member(b"./plain.txt", b"plain")
        + member(b"d//e/./", kind=b"5")
        + member(b"d/e/run", b"#!", mode=0o7755)  # the set-user-id bit is left behind
        + member(b"d/", kind=b"5")
        + member(b"zero\0/../../etc", b"ends at the NUL")
        + member(b"name", b"by prefix", prefix=b"pre/fix")
        + member(b"v7", b"v7", b"\0", magic=b"")
        + long_name("ü".encode() * 100) + member(b"cut", b"long")
        + pax((b"path", b"pax \xe2\x82\xac"), (b"size", b"3"), (b"mtime", b"1e9")) + member(b"x", b"pax", size=b"0")
        + member(b"base", b"256", size=b"\x80" + bytes(10) + b"\x03")
        + member(b"sub/old.txt", b"new")
        + member(b"empty", mode=0)
        + END
    )  # fmt: skip
    target = world / "target"
    outside = snapshot(world / "outside")
    paths = unpack(target, archive, chunk)
    expected = {
        "plain.txt": b"plain",
        "d/e/run": b"#!",
        "zero": b"ends at the NUL",
        "pre/fix/name": b"by prefix",
        "v7": b"v7",
        "ü" * 100: b"long",
        "pax €": b"pax",
        "base": b"256",
        "sub/old.txt": b"new",
        "empty": b"",
    }
    assert {str(path.relative_to(target)): path.read_bytes() for path in paths} == expected
    modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in paths}
    assert modes.pop("run") == 0o755
    assert set(modes.values()) == {0o644}
    assert (target / "keep.txt").read_text() == "keep"
    assert snapshot(world / "outside") == outside
    assert not list(target.rglob(".sandbox-magic-*"))


@pytest.mark.parametrize("chunk", CHUNKS)
def test_rename_replaces_the_first_component(tmp_path: Path, chunk: int) -> None:
    assert unpack(tmp_path, member(b"a.txt", b"1") + END, chunk, rename="b.txt") == [tmp_path / "b.txt"]
    archive = member(b"d/", kind=b"5") + member(b"d/a", b"2") + member(b"./d/e/f", b"3") + END
    assert unpack(tmp_path, archive, chunk, rename="new") == [tmp_path / "new/a", tmp_path / "new/e/f"]
    assert names(tmp_path) == {"b.txt", "new"}


@pytest.mark.parametrize(
    "archive", [member(b"a") + member(b"b"), member(b"d/a") + member(b"a"), member(b".", kind=b"5")]
)
def test_rename_takes_one_file_or_folder_only(tmp_path: Path, archive: bytes) -> None:
    with pytest.raises(TransferError, match="asked for"):
        unpack(tmp_path, archive + END, rename="mine")
    assert names(tmp_path) == set()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\n", "\ud800", "n" * 256])
def test_rename_to_a_wrong_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(TransferError, match="name"):
        Unpacker(tmp_path, rename=name)


def test_an_existing_file_is_replaced_at_the_end_and_never_written_through(world: Path) -> None:
    target, secret = world / "target", world / "outside" / "secret.txt"
    (target / "hard").hardlink_to(secret)
    with (target / "hard").open("rb") as reader:
        unpacker = Unpacker(target)
        unpacker.feed(member(b"hard", b"new") + END)
        assert (target / "hard").read_text() == "secret", "the old file must be whole until the new one is"
        assert unpacker.finish() == [target / "hard"]
        assert reader.read() == b"secret"
    assert (target / "hard").read_text() == "new"
    assert secret.read_text() == "secret"


def test_abort_removes_everything_once(world: Path) -> None:
    before = snapshot(world)
    unpacker = Unpacker(world / "target")
    unpacker.feed(member(b"d/e/f", b"x") + member(b"keep.txt", b"x") + member(b"half", b"x" * 900)[:800])
    assert snapshot(world) != before
    unpacker.abort()
    assert snapshot(world) == before
    unpacker.abort()
    for act in (lambda: unpacker.feed(b""), unpacker.finish):
        with pytest.raises(TransferError, match="has ended"):
            act()


def test_abort_after_finish_keeps_the_files(tmp_path: Path) -> None:
    unpacker = Unpacker(tmp_path)
    unpacker.feed(member(b"a", b"x") + END)
    unpacker.finish()
    unpacker.abort()
    assert (tmp_path / "a").read_bytes() == b"x"


def test_abort_leaves_what_others_put_there(tmp_path: Path) -> None:
    unpacker = Unpacker(tmp_path)
    unpacker.feed(member(b"d/mine", b"x") + member(b"e/mine", b"x"))
    (tmp_path / "d" / "yours").write_text("y")
    unpacker.abort()
    assert list(snapshot(tmp_path)) == ["d", "d/yours"]


def test_an_interrupt_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacker = Unpacker(tmp_path)
    unpacker.feed(member(b"a/b", b"x"))

    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fchmod", interrupted)
    with pytest.raises(KeyboardInterrupt):
        unpacker.feed(member(b"a/c", b"x"))
    assert names(tmp_path) == set()


@pytest.mark.parametrize("name", [b"file-link", b"sub", b"fifo", b"folder-link/x"])
def test_what_cannot_be_written_is_refused_before_its_contents_come(world: Path, name: bytes) -> None:
    before = snapshot(world)
    with pytest.raises(TransferError, match="in the target"):
        Unpacker(world / "target").feed(member(name, b"x" * 5000)[:512])
    assert snapshot(world) == before


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_folder_swapped_for_a_link_during_the_transfer_is_not_followed(world: Path, chunk: int) -> None:
    target, outside = world / "target", world / "outside"
    before = snapshot(outside)
    unpacker = Unpacker(target)
    first = member(b"d/one", b"1") + member(b"d/two", b"2" * 600)[:700]
    for start in range(0, len(first), chunk):
        unpacker.feed(first[start : start + chunk])
    (target / "d").rename(target / "moved")
    (target / "d").symlink_to(outside / "folder")
    with pytest.raises(TransferError, match="'d' in the target as a folder"):
        unpacker.feed(bytes(2000)[:836] + member(b"d/three", b"3") + END)
    assert snapshot(outside) == before


@pytest.mark.parametrize(
    "trap", ["link to a file", "link to a folder", "folder", "file in place of ours", "link in place of ours"]
)
def test_a_trap_set_just_before_the_end_is_seen(world: Path, trap: str) -> None:
    target, outside = world / "target", world / "outside"
    before = snapshot(outside)
    unpacker = Unpacker(target)
    unpacker.feed(member(b"new/good", b"x") + member(b"new/file", b"x") + END)
    temporary = sorted((target / "new").iterdir())[-1]
    match trap:
        case "link to a file":
            (target / "new/file").symlink_to(outside / "secret.txt")
        case "link to a folder":
            (target / "new/file").symlink_to(outside / "folder")
        case "folder":
            (target / "new/file").mkdir()
        case "file in place of ours":
            (target / "other").write_text("other")
            (target / "other").replace(temporary)
        case "link in place of ours":
            temporary.unlink()
            temporary.symlink_to(outside / "secret.txt")
    with pytest.raises(TransferError, match="new/file"):
        unpacker.finish()
    assert snapshot(outside) == before
    assert not (target / "new/good").exists()
    theirs = {"file", temporary.name} if "ours" in trap else {"file"}
    assert names(target / "new") <= theirs


def test_a_target_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(TransferError, match=r"symbolic link: give '.*/real'"):
        Unpacker(tmp_path / "link")


@pytest.mark.parametrize("name", ["missing", "file"])
def test_a_target_that_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TransferError, match=rf"cannot write to the folder '.*{name}'"):
        Unpacker(tmp_path / name)


def test_a_target_that_is_moved_gets_the_files_where_it_is_now(world: Path) -> None:
    target = world / "target"
    unpacker = Unpacker(target)
    target.rename(world / "moved")
    target.symlink_to("outside")
    unpacker.feed(member(b"a", b"x") + END)
    unpacker.finish()
    assert (world / "moved" / "a").read_bytes() == b"x"
    assert not (world / "outside" / "a").exists()


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    unpacker = Unpacker(tmp_path)
    monkeypatch.setattr(os, "mkdir", full)
    with pytest.raises(TransferError, match="No space left on device"):
        unpacker.feed(member(b"d/a", b"x"))
    assert names(tmp_path) == set()


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    def transfer() -> None:
        unpack(tmp_path, member(b"d/a", b"x") + END)
        for archive in (member(b"d/a", b"x" * 999)[:700], by_tarfile(("l", tarfile.SYMTYPE, "x"))):
            with pytest.raises(TransferError):
                unpack(tmp_path, archive)
        chunks = pack(tmp_path, "t")
        next(chunks)

    transfer()
    before = len(names(Path("/dev/fd")))
    for _ in range(3):
        transfer()
    assert len(names(Path("/dev/fd"))) == before
