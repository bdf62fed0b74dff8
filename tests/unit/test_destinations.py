"""What `network=[...]` means, and what it cannot mean."""

from __future__ import annotations

import pytest

from sandbox_magic import InvalidOptions, Sandbox
from sandbox_magic.destinations import Destination, canonical, destinations


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.example", Destination("a.example")),
        ("A.Example.", Destination("a.example")),
        ("a.example:8080", Destination("a.example", 8080)),
        ("*.a.example:443", Destination("*.a.example", 443)),
        ("*", Destination("*")),
        ("mirror.lan@10.0.0.5:8080", Destination("mirror.lan", 8080, "10.0.0.5")),
        ("mirror@[fd00::5]", Destination("mirror", None, "fd00::5")),
        ("bücher.example", Destination("xn--bcher-kva.example")),
        ("under_score.example", Destination("under_score.example")),
    ],
)
def test_what_can_be_written(text: str, expected: Destination) -> None:
    assert Destination.parse(text) == expected
    assert Destination.parse(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "https://a.example", "a.example/path", "a.example:0", "a.example:99999", "a.example:x", "10.0.0.1"),
        *("127.1", "2130706433", "0x7f000001", "0177.0.0.1", "[::1]", "::1", "user@a.example", "a..example"),
        *("-a.example", "*a.example", "a.*.example", "*.", "a b.example", "a.exa\nmple", "x" * 64, "a@10.0.0"),
        ".".join(["abc"] * 70),
    ],
)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(InvalidOptions, match="network"):
        Destination.parse(text)


@pytest.mark.parametrize(
    ("rule", "name", "port", "covered"),
    [
        ("a.example", "a.example", 443, True),
        ("a.example", "a.example", 80, True),
        ("a.example", "a.example", 22, False),
        ("a.example", "b.a.example", 443, False),
        ("a.example", "aa.example", 443, False),
        ("a.example:22", "a.example", 22, True),
        ("a.example:22", "a.example", 443, False),
        ("*.a.example", "b.a.example", 443, True),
        ("*.a.example", "c.b.a.example", 443, True),
        ("*.a.example", "a.example", 443, False),
        ("*.a.example", "evila.example", 443, False),
        ("*.a.example", "a.example.evil.example", 443, False),
        ("*", "any.example", 80, True),
    ],
)
def test_what_a_rule_covers(rule: str, name: str, port: int, covered: bool) -> None:
    assert Destination.parse(rule).covers(name, port) is covered


def test_names_are_compared_in_one_form() -> None:
    assert canonical("A.EXAMPLE.") == "a.example"
    assert canonical("a.example..") == canonical("1.2.3.4") == canonical("0x7f.1") == canonical("") == ""


def test_a_spec_takes_names_in_every_form() -> None:
    names = (Destination("a.example"), Destination("*.b.example", 8443))
    for wish in ("a.example,*.b.example:8443", ["a.example", "*.b.example:8443", "a.example"], names):
        spec = Sandbox(network=wish).spec
        assert spec.network == destinations(wish) == names
        assert not spec.online
    assert Sandbox(network=True).spec.online and Sandbox(profile="open").spec.online
    assert not Sandbox(network=names, profile="open").spec.online, "names are less than all of the network"
    assert not Sandbox(network=[], profile="open").spec.online
    with pytest.raises(InvalidOptions, match="not a name"):
        Sandbox(network=["10.0.0.1"])
