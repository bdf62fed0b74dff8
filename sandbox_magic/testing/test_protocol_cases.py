"""The cases of the protocol, each in a fresh session in a real sandbox."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from sandbox_magic import CommandTimeout, Result, Sandbox
from sandbox_magic.session import Session
from sandbox_magic.testing import protocol_cases

CASES = protocol_cases()


def run(session: Session, cell: str, timeout: float | None) -> Result:
    try:
        return session.run(cell, timeout=timeout or 30)
    except CommandTimeout as error:
        if not timeout:
            pytest.fail(f"the cell hung: {cell!r} ({error})")
        return error.result


def check(expect: dict[str, Any], result: Result) -> None:
    if expect["exit"] is not None:
        assert result.exit_code == expect["exit"]
    for stream in ("stdout", "stderr"):
        data = getattr(result, f"{stream}_bytes")
        if expect.get(stream) is not None:
            assert data == expect[stream].encode()
        assert expect.get(f"{stream}_contains", "").encode() in data
        if f"{stream}_not_contains" in expect:
            assert expect[f"{stream}_not_contains"].encode() not in data
    if "stdout_b64" in expect:
        assert result.stdout_bytes == base64.b64decode(expect["stdout_b64"])
    if "stdout_len" in expect:
        assert len(result.stdout_bytes) == expect["stdout_len"]
    if "max_seconds" in expect:  # on a quiet machine; another process of tests may work at the same time
        assert result.duration <= 3 * expect["max_seconds"]
    if expect.get("timed_out"):
        assert result.timed_out
    if expect.get("shell_died"):
        assert result.shell_ended


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_case(shared: Sandbox, kind: str, case: dict[str, Any]) -> None:
    if kind not in case["shells"]:
        return  # written for the other kind of shell; the case file says so
    machine = shared._machine
    assert machine is not None
    session = Session(machine, env={"LANG": "C.UTF-8", "HOME": machine.home}, shell=shared.spec.shell)
    try:
        for cell, expect in zip(case["cells"], case["expect"], strict=True):
            result = run(session, cell, expect.get("timeout"))
            try:
                check(expect, result)
            except AssertionError as error:
                raise AssertionError(f"{cell[:200]!r}: {result!r} {result.notes}\n{error}") from None
            late = b"".join(output.data for output in session.link.late.take())
            assert late == b"", "nothing of ours is ever printed between cells"
    finally:
        session.close()
