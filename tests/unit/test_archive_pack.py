from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tar_corpus import END, names, padded, snapshot, unpack

from sandbox_magic.archive import pack
from sandbox_magic.errors import TransferError

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    """Compare modes of files that others make."""
    before = os.umask(0o022)
    yield
    os.umask(before)


# Each name starts apart from the devices of Windows, and no two of them differ in case or accents only.
NAMES = st.text(st.sampled_from("abz09 ._-+~#'äß€中🦆"), min_size=1, max_size=30).map("n".__add__)
TREES = st.recursive(
    st.tuples(st.binary(max_size=1500), st.booleans()),
    lambda below: st.dictionaries(NAMES, below, max_size=4),
    max_leaves=12,
)


def grow(path: Path, tree: object) -> None:
    if isinstance(tree, dict):
        path.mkdir()
        for name, below in tree.items():
            grow(path / name, below)
    else:
        assert isinstance(tree, tuple)
        path.write_bytes(tree[0])
        path.chmod(0o755 if tree[1] else 0o644)


def test_a_tree_comes_back_as_it_was() -> None:
    @settings(max_examples=40, deadline=None)
    @given(TREES, st.sampled_from([1, 513, 65536]))
    def round_trip(tree: object, chunk: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "source"), Path(folder, "target")
            target.mkdir()
            grow(source, tree)
            unpack(target, b"".join(pack(source, "there")), chunk, rename="back")
            source.rename(target / "original")
            found = snapshot(target)
            split = {
                top: {k.partition("/")[2]: v for k, v in found.items() if k.startswith(top)}
                for top in ("back", "original")
            }
            assert split["back"] == split["original"]

    round_trip()


def test_chunks_are_small_and_fill_a_record(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(3_000_000))
    chunks = list(pack(tmp_path / "big", "big"))
    assert max(map(len, chunks)) <= 1 << 20
    assert sum(map(len, chunks)) % 10240 == 0
    assert chunks[-1].endswith(END)


@pytest.mark.parametrize("size", [8192 - n for n in (0, 1, 511, 512, 513, 1024)] + [9216, 9215])
def test_the_end_is_two_zero_blocks_in_the_last_record(tmp_path: Path, size: int) -> None:
    (tmp_path / "f").write_bytes(b"x" * size)
    archive = b"".join(pack(tmp_path / "f", "f"))
    content = 512 + len(padded(b"x" * size))
    assert len(archive) == -(-(content + 1024) // 10240) * 10240
    assert archive[content:].strip(b"\0") == b""


def test_headers_tell_nothing_about_the_host(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    (tmp_path / "f").chmod(0o6711)
    os.utime(tmp_path / "f", (4e9, 4e9))
    with tarfile.open(fileobj=io.BytesIO(b"".join(pack(tmp_path, "d")))) as archive:
        folder, file = archive.getmembers()
    assert (folder.name, folder.mode, file.name, file.mode) == ("d", 0o755, "d/f", 0o755)
    for info in (folder, file):
        assert (info.uid, info.gid, info.uname, info.gname) == (0, 0, "", "")
    assert file.mtime < 4e9, "a time in the future makes GNU tar warn and make work again"


def test_a_link_is_followed_only_if_it_was_named(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "link").symlink_to("../secret")
    with tarfile.open(fileobj=io.BytesIO(b"".join(pack(tmp_path / "d" / "link", "f")))) as archive:
        assert archive.getmember("f").isreg()
    with pytest.raises(TransferError, match=r"d/link' is a symbolic link.*cp -rL"):
        pack(tmp_path / "d", "d")


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "missing", "loop", "proc", "deep"])
def test_what_cannot_be_packed_is_refused_before_the_first_byte(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "odd"
    match kind:
        case "fifo":
            os.mkfifo(source)
        case "socket":
            os.mknod(source, stat.S_IFSOCK | 0o600)
        case "device":
            source = Path("/dev/zero")
        case "loop":
            source.symlink_to(source)
        case "proc":
            source = Path("/proc/self/cmdline")
        case "deep":
            (source / "/".join("d" * 64)).mkdir(parents=True)
    message = {
        "missing": "cannot read",
        "loop": "cannot read",
        "proc": "does not tell its size",
        "deep": "64 folders deep",
    }
    with pytest.raises(TransferError, match=message.get(kind, "neither a regular file nor a folder")):
        list(pack(source, "odd"))
    if kind in {"fifo", "socket"}:
        with pytest.raises(TransferError, match="odd' is neither"):
            pack(tmp_path, "d")


@pytest.mark.parametrize("name", ["", ".", "..", "/a", "a/../b", "a//b", "a/", "a\0b"])
def test_a_wrong_name_for_the_archive_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(TransferError, match="name in an archive"):
        pack(tmp_path, name)


def test_a_file_that_shrinks_stops_the_archive(tmp_path: Path) -> None:
    source = tmp_path / "f"
    source.write_bytes(b"x" * 3_000_000)
    chunks = pack(source, "f")
    next(chunks)
    os.truncate(source, 1_200_000)
    with pytest.raises(TransferError, match="became shorter"):
        list(chunks)


def test_a_file_that_grows_is_packed_as_it_was(tmp_path: Path) -> None:
    source = tmp_path / "f"
    source.write_bytes(b"x" * 3_000_000)
    chunks = pack(source, "f")
    archive = next(chunks)
    with source.open("ab") as file:
        file.write(b"y" * 3_000_000)
    archive += b"".join(chunks)
    assert len(archive) < 3_020_000
    assert b"y" not in archive


def test_a_folder_swapped_for_a_link_while_packing_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("secret")
    tree = tmp_path / "tree"
    (tree / "b").mkdir(parents=True)
    (tree / "a").write_bytes(b"x" * 2_000_000)
    (tree / "b" / "key").write_text("harmless")
    chunks = pack(tree, "tree")
    next(chunks)
    (tree / "b").rename(tmp_path / "b")
    (tree / "b").symlink_to(tmp_path / "secret")
    with pytest.raises(TransferError, match="symbolic link"):
        list(chunks)


@pytest.mark.parametrize("trap", ["link", "fifo"])
def test_a_file_swapped_between_look_and_open_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trap: str
) -> None:
    (tmp_path / "secret").write_text("secret")
    victim = tmp_path / "tree" / "victim"
    victim.parent.mkdir()
    victim.write_text("harmless")
    really_open = os.open

    def swap_and_open(path: str | Path, flags: int, *args: int, dir_fd: int | None = None) -> int:
        if path == "victim":
            victim.unlink()
            os.mkfifo(victim) if trap == "fifo" else victim.symlink_to("../secret")
        return really_open(path, flags, *args, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", swap_and_open)
    with pytest.raises(TransferError, match="victim"):
        pack(tmp_path / "tree", "tree")


# other tars


def tars(*commands: str) -> pytest.MarkDecorator:
    """Once for each of these commands, if this machine has it."""
    absent = pytest.mark.skip("not on this machine")
    found = {command: shutil.which(command.split()[0]) for command in commands}
    return pytest.mark.parametrize(
        "tar",
        [pytest.param(command.split(), id=command, marks=() if found[command] else absent) for command in commands],
    )


def make_tree(root: Path) -> None:
    (root / ("long " * 20) / ("ä" * 60)).mkdir(parents=True)
    (root / ("long " * 20) / ("ä" * 60) / "deep.bin").write_bytes(os.urandom(70_000))
    (root / "empty folder").mkdir()
    (root / "empty").touch()
    (root / "run").write_text("#!/bin/sh\n")
    (root / "run").chmod(0o755)
    (root / "-n *?").write_text("odd")


@tars("tar", "busybox tar")
def test_tar_reads_what_we_pack(tmp_path: Path, tar: list[str]) -> None:
    make_tree(tmp_path / "tree")
    (tmp_path / "out").mkdir()
    subprocess.run(
        [*tar, "-xf", "-"], cwd=tmp_path / "out", input=b"".join(pack(tmp_path / "tree", "tree")), check=True
    )
    assert snapshot(tmp_path / "out" / "tree") == snapshot(tmp_path / "tree")


@tars("tar", "tar --format=ustar", "tar --format=pax", "tar --format=v7", "tar --format=gnu", "busybox tar")
@pytest.mark.parametrize("name", ["tree", "./tree", "."])
def test_we_read_what_tar_packs(tmp_path: Path, tar: list[str], name: str) -> None:
    make_tree(tmp_path / "in" / "tree")
    if tar[-1] in {"--format=ustar", "--format=v7"}:  # they cannot hold such names
        shutil.rmtree(tmp_path / "in" / "tree" / ("long " * 20))
    archive = subprocess.run([*tar, "-cf", "-", name], cwd=tmp_path / "in", check=True, capture_output=True).stdout
    (tmp_path / "out").mkdir()
    unpack(tmp_path / "out", archive, 513)
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "in")


@tars("tar", "busybox tar")
def test_links_that_tar_packs_are_refused_by_name(tmp_path: Path, tar: list[str]) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a").write_text("a")
    (tmp_path / "tree" / "link").symlink_to("a")
    archive = subprocess.run([*tar, "-cf", "-", "tree"], cwd=tmp_path, check=True, capture_output=True).stdout
    (tmp_path / "out").mkdir()
    with pytest.raises(TransferError, match="'tree/link' is a symbolic link"):
        unpack(tmp_path / "out", archive)
    assert names(tmp_path / "out") == set()
