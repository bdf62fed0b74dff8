"""A sample of the differential test: cell by cell is the same as a script."""

from __future__ import annotations

from differential import differences

from sandbox_magic import Sandbox


def test_random_scripts_do_what_they_do_in_a_plain_shell(shared: Sandbox, kind: str) -> None:
    found = differences(shared, range(30), kind)
    assert not found, "\n\n".join(found)
