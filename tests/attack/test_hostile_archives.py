"""Archives that a hostile sandbox sends to `get`: each is refused, and nothing here has changed."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from tar_corpus import END, HOSTILE, MAX_BYTES, MAX_DEPTH, MAX_FILES, member, names, pax, snapshot, unpack
from tries import Breach

from sandbox_magic import Sandbox, TransferError


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A target with traps in it, and beside it what must never change."""
    (tmp_path / "outside" / "folder").mkdir(parents=True)
    (tmp_path / "outside" / "secret.txt").write_text("secret")
    target = tmp_path / "target"
    (target / "sub").mkdir(parents=True)
    (target / "keep.txt").write_text("keep")
    (target / "folder-link").symlink_to(tmp_path / "outside" / "folder")
    (target / "file-link").symlink_to(tmp_path / "outside" / "secret.txt")
    (target / "dangling").symlink_to(tmp_path / "outside" / "new.txt")
    (target / "sub" / "up").symlink_to("..")
    os.mkfifo(target / "fifo")
    return tmp_path


def attempts() -> list[object]:
    return [
        pytest.param(name, id=name.replace(" ", "_"), marks=pytest.mark.attack("archives", f"an archive: {name}"))
        for name in HOSTILE
    ]


@pytest.mark.parametrize("case", attempts())
def test_it_is_refused_and_nothing_changes(world: Path, case: str) -> None:
    archive, message = HOSTILE[case]
    before = snapshot(world)
    for chunk in (97, 1 << 20):
        with pytest.raises(TransferError, match=message) as caught:
            unpack(
                world / "target", archive + END, chunk, max_bytes=MAX_BYTES, max_files=MAX_FILES, max_depth=MAX_DEPTH
            )
        assert str(caught.value).isprintable()
        if (after := snapshot(world)) != before:
            raise Breach(sorted(set(after) ^ set(before)))


@pytest.mark.attack("archives", "more members than the limit", bounded=True)
def test_more_members_than_the_limit(tmp_path: Path) -> None:
    """The end comes early, and nothing of what was written until then stays."""
    archive = b"".join(member(b"%d" % number) for number in range(301))
    with pytest.raises(TransferError, match="more than 300 files"):
        unpack(tmp_path, archive, 1 << 20, max_files=300)
    assert names(tmp_path) == set()


@pytest.mark.attack("archives", "owners, attributes, capabilities, times and modes of a member")
def test_what_a_member_says_of_itself(tmp_path: Path) -> None:
    records = ((b"SCHILY.xattr.user.evil", b"1"), (b"SCHILY.xattr.security.capability", b"\1\0\0\2\xff\xff\xff\xff"),
               (b"uid", b"0"), (b"gname", b"root"), (b"mtime", b"99999999999"), (b"SCHILY.acl.access", b"user::rwx"),
               (b"LIBARCHIVE.creationtime", b"1"), (b"comment", b"x"), (b"hdrcharset", b"BINARY"))  # fmt: skip
    unpack(tmp_path, pax(*records) + member(b"a", b"x", mode=0o7777) + END)
    facts = (tmp_path / "a").stat()
    assert (facts.st_mode & 0o7777, facts.st_uid, facts.st_nlink) == (0o755, os.getuid(), 1)
    assert os.listxattr(tmp_path / "a") == [] and facts.st_mtime < 9e9


# A sandbox's own tar, which sends what it likes.
SENT = ["symlink, then through it", "hard link outside", "dot dot", "dot dot by pax", "absolute", "fifo",
        "character device", "ESC", "duplicate", "8 GiB without data", "size without data", "data after the end",
        "zeros for ever", "case clash"]  # fmt: skip


@pytest.fixture(scope="module", params=["docker", "podman"])
def liar(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    folder = tmp_path_factory.mktemp("archives")
    for number, case in enumerate(SENT):
        (folder / str(number)).write_bytes(HOSTILE[case][0] + END)
    with Sandbox(engine=request.param) as box:
        box.put(folder, "/work/archives")
        box.run("printf '#!/bin/sh\\ncat \"$(cat /work/which)\"\\n' >/usr/local/bin/tar; chmod +x /usr/local/bin/tar")
        yield box


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=pytest.mark.attack("archives", f"sent from inside: {c}")) for c in SENT]
)
def test_sent_by_a_sandbox(liar: Sandbox, world: Path, case: str) -> None:
    liar.run(f"echo /work/archives/{SENT.index(case)} >/work/which; mkdir -p /work/thing", check=True)
    before = snapshot(world)
    with pytest.raises(TransferError):
        liar.get("/work/thing", world / "target")
    if snapshot(world) != before:
        raise Breach(case)


LIES = {
    "floods stderr": "head -c 3000000 /dev/zero | tr '\\0' 'e' >&2",
    "ends at once": "exit 0",
    "forges its exit code": "printf '\\036%032d 0\\n' 0 >&2; exit 3",
}


@pytest.mark.parametrize(
    "lie", [pytest.param(lie, marks=pytest.mark.attack("archives", f"a tar that {lie}")) for lie in LIES]
)
def test_a_tar_that_lies(liar: Sandbox, world: Path, lie: str) -> None:
    liar.run("cp /usr/local/bin/tar /tmp/kept; mkdir -p /work/thing", check=True)
    liar.run(f"printf '%s\\n' '#!/bin/sh' {shlex.quote(LIES[lie])} >/usr/local/bin/tar", check=True)
    before = snapshot(world)
    try:
        with pytest.raises(TransferError) as caught:
            liar.get("/work/thing", world / "target")
    finally:
        liar.run("cp /tmp/kept /usr/local/bin/tar", check=True)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 700
    assert snapshot(world) == before
