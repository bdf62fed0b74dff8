"""The table of known holes, and what a version says about it."""

from __future__ import annotations

import re

import pytest

from sandbox_magic.engines.holes import HOLES, components, cure, named, possible


@pytest.mark.parametrize(
    ("component", "version", "names"),
    [
        ("runc", "1.1.5+ds1", {"CVE-2024-21626", "CVE-2025-31133"}),
        ("runc", "1.1.12", {"CVE-2025-31133"}),
        ("runc", "1.2.7", {"CVE-2025-31133"}),
        ("runc", "1.2.8", set()),
        ("runc", "1.3.2", {"CVE-2025-31133"}),
        ("runc", "1.3.3", set()),
        ("runc", "1.10.0", set()),
        ("runc", "unknown", {"CVE-2024-21626", "CVE-2025-31133"}),
        ("Docker Engine", "20.10.24+dfsg1", {"CVE-2026-41567", "a default seccomp profile with io_uring"}),
        ("Docker Engine", "28.5.2", {"CVE-2026-41567"}),
        ("Docker Engine", "29.5.1", set()),
        ("bubblewrap", "0.8.0", {"CVE-2026-87766"}),
        ("bubblewrap", "0.12.0", set()),
        ("Python", "3.11.7", {"CVE-2025-4517"}),
        ("Python", "3.12.11", set()),
        ("Python", "3.14.0rc1", set()),
        ("JupyterLab", "4.5.6", {"CVE-2026-42557"}),
        ("JupyterLab", "4.6.6", set()),
        ("crun", "0.1", set()),
    ],
)
def test_what_a_version_may_have(component: str, version: str, names: set[str]) -> None:
    assert {hole.names.split(", ")[0] for hole in possible({component: version})} == names


def test_each_hole_says_what_why_and_where_it_is_mended() -> None:
    for hole in HOLES:
        assert hole.names and hole.reason and hole.fixed
        assert all(re.fullmatch(r"\d+(\.\d+)+", version) for version in hole.fixed), hole
        assert not any(hole in possible({hole.component: version}) for version in hole.fixed)
        assert all(named(name) is hole for name in hole.names.split(", "))


def test_the_cure_is_of_the_same_branch_where_there_is_one() -> None:
    assert cure(named("CVE-2025-4138"), "3.11.7") == "3.11.13"
    assert cure(named("CVE-2025-31133"), "1.1.5+ds1") == "1.2.8 or 1.3.3"
    assert cure(named("CVE-2025-31133"), "unknown") == "1.2.8 or 1.3.3"


def test_the_parts_of_docker_and_of_podman_have_the_names_of_the_table() -> None:
    docker = [{"Name": "Engine", "Version": "20.10.24+dfsg1"}, {"Name": "runc", "Version": "1.1.5+ds1"}]
    assert components(docker) == {"Docker Engine": "20.10.24+dfsg1", "runc": "1.1.5+ds1"}
    podman = [
        {"Name": "Podman Engine", "Version": "4.3.1"},
        {"Name": "Conmon", "Version": "conmon version 2.1.6, commit: unknown"},
        {"Name": "OCI Runtime (runc)", "Version": "runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1+deb12u1"},
        {"Name": "OCI Runtime (crun)", "Version": "?"},
    ]
    assert components(podman) == {
        "Podman Engine": "4.3.1",
        "Conmon": "2.1.6",
        "runc": "1.1.5+ds1",
        "crun": "unknown",
    }
