"""Ways through the host's folders: the user's own links are followed, those that a sandbox may have made are not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox_magic.errors import TransferError
from sandbox_magic.reaching import reached


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "shared" / "deep").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    for file in ("shared/file", "shared/deep/file", "outside/secret"):
        (tmp_path / file).write_text(file)
    (tmp_path / "to-shared").symlink_to("shared")
    (tmp_path / "to-deep").symlink_to(tmp_path / "shared" / "deep")
    (tmp_path / "through").symlink_to("shared/out/secret")
    (tmp_path / "round").symlink_to("round")
    for name, target in (("out", "../outside"), ("whole", tmp_path / "outside"), ("in", "deep"), ("self", "file")):
        (tmp_path / "shared" / name).symlink_to(target)
    return tmp_path


def read(path: Path, *shared: Path) -> str:
    with reached(path, shared) as (folder, name):
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
        with os.fdopen(descriptor) as file:
            return file.read()


OWN = ["shared/file", "to-shared/file", "to-deep/file", "to-deep/../file", "shared/deep/../file", "outside/secret"]
PLANTED = ["shared/out/secret", "shared/whole/secret", "shared/in/file", "shared/self", "to-shared/self", "through",
           "to-deep/../out/secret", "shared/deep/../../shared/self", "shared/out/new"]  # fmt: skip


@pytest.mark.parametrize("path", OWN)
def test_what_the_user_named_is_reached(top: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(top / path, top / "shared") == (top / path).read_text()
    monkeypatch.chdir(top)
    assert read(Path(path), top / "shared") == (top / path).read_text()


@pytest.mark.parametrize("path", PLANTED)
def test_no_link_of_a_sandbox_is_followed(top: Path, path: str) -> None:
    with pytest.raises(TransferError, match="which a sandbox may have made"):
        read(top / path, top / "shared")
    if not path.endswith("new"):
        assert read(top / path) == (top / path).read_text(), "where nobody else writes they are the user's own"


def test_what_is_not_there(top: Path) -> None:
    with reached(top / "shared" / "new", [top / "shared"]) as (folder, name):
        assert (os.fstat(folder).st_ino, name) == ((top / "shared").stat().st_ino, "new")
    for path in ("none/new", "shared/file/new", "round"):
        with pytest.raises(OSError, match=r"No such|Not a directory|Too many"):
            read(top / path, top / "shared")
    with reached(Path("/"), []) as (_, name):
        assert name == "."
