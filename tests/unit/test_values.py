"""Wishes, requests, results: values, without any engine."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sandbox_magic
from sandbox_magic import CommandFailed, CommandTimeout, ImageNotFound, InvalidOptions, Mount, Sandbox, SandboxSpec
from sandbox_magic.asking import Input
from sandbox_magic.capture import Capture
from sandbox_magic.engines.base import LABEL, Machine, Owner
from sandbox_magic.protocol import Output
from sandbox_magic.result import Result
from sandbox_magic.running import preparation
from sandbox_magic.session import Session
from sandbox_magic.spec import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("2k", 2048), ("512m", 512 << 20), ("1.5g", 3 << 29), ("1GiB", 1 << 30), ("1 GB", 1 << 30)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "-1", "1x", "1mm", "m"])
def test_not_sizes(text: str) -> None:
    with pytest.raises(InvalidOptions, match="size"):
        parse_size(text)


@pytest.mark.parametrize(
    "wish",
    [
        {"profile": "none"},
        {"image": ""},
        {"image": "-v"},
        {"image": "a b"},
        {"memory": 1},
        {"cpus": 0},
        {"pids": 1},
        {"cwd": "work"},
        {"env": {"1": "x"}},
        {"env": {"X": "\0"}},
        {"engine": 1, "no_such_field": 2},
        {"mounts": ["/tmp"]},
        {"mounts": ["/tmp:relative"]},
        {"mounts": ["/tmp:/x/../y"]},
        {"mounts": ["/tmp:/x:rx"]},
        {"mounts": [5]},
        {"mounts": 5},
        {"network": 5},
        {"network": [5]},
        {"memory": 1.5},
        {"env": {"X": "x" * (128 << 10)}},
        *(
            {name: []}
            for name in ("image", "engine", "profile", "user", "cwd", "shell", "runtime", "cpus", "pids", "env")
        ),
    ],
)
def test_wishes_that_cannot_be(wish: dict) -> None:
    with pytest.raises(InvalidOptions):
        Sandbox(**wish)


@pytest.mark.parametrize(
    "options",
    [
        *({"timeout": value} for value in ("x", -1, 0, float("nan"), True)),
        {"on_output": 5},
        {"code": b"true"},
        {"stdin": 5},
    ],
)
def test_runs_that_cannot_be(options: dict) -> None:
    """Nothing is started for them: there is no machine to start anything in."""
    session = Session(cast("Machine", None))
    with pytest.raises(InvalidOptions) as error:
        session.run(**{"code": "true"} | options)
    assert str(error.value).count("\n") == 0


@pytest.mark.parametrize("given", [{"given": 5}, {"ask": "me"}, {"ask_secret": 5}])
def test_what_nobody_can_read(given: dict) -> None:
    with pytest.raises(InvalidOptions):
        Input(**given)


@pytest.mark.parametrize(("env", "cwd"), [(5, None), ({"X": 5}, None), ({5: "x"}, None), ({}, 5)])
def test_preparations_that_cannot_be(env: object, cwd: object) -> None:
    with pytest.raises(InvalidOptions):
        preparation(env, cwd)  # type: ignore[arg-type] # that is the point


@pytest.mark.parametrize("source", ["/", "/etc", "/proc", "~", "/var/run/docker.sock", "/no/such/folder"])
def test_mounts_that_would_open_the_wall_are_refused(source: str) -> None:
    with pytest.raises(InvalidOptions, match="mount"):
        Sandbox(mounts=[f"{source}:/x"])


def test_mounts_resolve_links_before_they_judge(tmp_path: Path) -> None:
    (tmp_path / "etc").symlink_to("/etc")
    with pytest.raises(InvalidOptions, match="refused"):
        Mount(str(tmp_path / "etc"), "/x")
    (tmp_path / "docker.sock").touch()
    with pytest.raises(InvalidOptions, match="socket"):
        Mount(str(tmp_path / "docker.sock"), "/x")
    assert Mount.parse(f"{tmp_path}:/data:rw") == Mount(str(tmp_path), "/data", True)


def test_secrets_are_not_in_the_repr() -> None:
    assert "tweet" not in repr(SandboxSpec(env=(("KEY", "tweet"),)))


# An image can carry any label, and so whatever is made of it: none may end a sweep.
FORGED = ("²", "-1", "9" * 20, "9" * 9999, "1 ", "")


def test_owner() -> None:
    me = Owner.me()
    assert Owner.from_labels(me.labels()) == me
    machine, boot, namespace = me.host.split("/")
    pid, started = me.pid, me.started
    process = subprocess.Popen(["sleep", "0"])
    process.wait()
    for owner, near, far in (
        (me, "lives", "lives"),
        (Owner.from_labels({}), "nobody", "nobody"),
        *((Owner.from_labels(me.labels() | {f"{LABEL}.owner.pid": forged}), "nobody", "nobody") for forged in FORGED),
        (Owner(f"other-machine/{boot}/{namespace}", pid, "1"), "another machine", "another machine"),
        (Owner(f"{machine}/earlier-boot/{namespace}", pid, started), "", "another machine, or"),
        (Owner(f"{machine}/{boot}/pid:[1]", 999_999_999, "1"), "another container", "another container"),
        (Owner(me.host, pid, "1"), "", ""),
        (Owner(me.host, pid, ""), "lives", "lives"),
        (Owner(me.host, process.pid, "5"), "", ""),
    ):
        for doubt, words in ((owner.doubt(), near), (owner.doubt(far=True), far)):
            assert (words in doubt) if words else (doubt == ""), (owner, doubt)


@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(max_size=50)), max_size=40))
def test_capture_keeps_order_and_streams(pieces: list[tuple[str, bytes]]) -> None:
    for capture in (Capture(), Capture(in_memory=100)):
        for stream, data in pieces:
            capture.add(Output(stream, data))
        assert capture.output() == b"".join(data for _, data in pieces)
        assert capture.stdout() == b"".join(data for stream, data in pieces if stream == "stdout")
        assert capture.stderr() == b"".join(data for stream, data in pieces if stream == "stderr")
        copy = pickle.loads(pickle.dumps(capture))
        assert (copy.output(), copy.stderr()) == (capture.output(), capture.stderr())


def test_capture_is_bounded() -> None:
    capture = Capture(in_memory=10, kept=100)
    for _ in range(1000):
        capture.add(Output("stdout", b"x"))
        capture.add(Output("stderr", b"y"))
    assert capture.truncated
    assert capture.size == 2000
    assert len(capture.output()) <= 100


def result(code: int | None, output: bytes = b"", **facts: object) -> Result:
    capture = Capture()
    capture.add(Output("stdout", output))
    return Result("command", code, 0.5, capture, **facts)  # type: ignore[arg-type]


def test_errors_pickle_and_speak() -> None:
    failed = pickle.loads(pickle.dumps(CommandFailed(result(127, b"said"))))
    assert isinstance(failed, subprocess.CalledProcessError)
    assert (failed.returncode, failed.stdout, failed.output) == (127, "said", "said")
    assert "command not found" in str(failed)
    assert failed._render_traceback_() == [f"CommandFailed: {failed}"]
    assert "unknown" in str(CommandFailed(result(None)))
    late = pickle.loads(pickle.dumps(CommandTimeout(result(130, stopped_by="SIGINT"), 2.5)))
    assert isinstance(late, TimeoutError)
    assert "2.5 s" in str(late)
    assert "SIGINT" in str(late)
    missing = pickle.loads(pickle.dumps(ImageNotFound("x:1", "no")))
    assert (missing.image, missing.reason) == ("x:1", "no")


def test_a_result_never_shows_markup() -> None:
    shown = result(0, b"<script>alert(1)</script>\x1b]0;title\x07")._repr_mimebundle_()
    assert "<script>" not in shown["text/html"]
    assert "\x1b" not in shown["text/plain"]


def test_importing_is_light() -> None:
    program = (
        "import sys, sandbox_magic; sandbox_magic.Sandbox; "
        "print([m for m in ('IPython', 'docker', 'requests') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
    assert set(sandbox_magic.__all__) <= set(dir(sandbox_magic)), "an editor offers what is not imported yet, too"
    for name in sandbox_magic.__all__:
        assert getattr(sandbox_magic, name) is not None
    with pytest.raises(AttributeError):
        sandbox_magic.nothing  # noqa: B018 # the access is the test


def test_a_mount_is_looked_at_again(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    spec = SandboxSpec(mounts=(Mount(str(tmp_path / "sub"), "/data"),))
    spec.check_mounts()
    (tmp_path / "sub").rmdir()
    with pytest.raises(InvalidOptions, match="gone"):
        spec.check_mounts()
    (tmp_path / "sub").symlink_to("/etc")
    with pytest.raises(InvalidOptions, match="a link by now"):
        spec.check_mounts()
