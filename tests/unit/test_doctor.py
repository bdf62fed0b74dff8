"""What the doctor makes of what it has found; nothing is started."""

from __future__ import annotations

import json

from sandbox_magic.doctor import EngineReport, Problem, Report
from sandbox_magic.engines.base import Probe
from sandbox_magic.proof import UNKNOWN, Limit


def report(*, available: bool = True, version: str = "1.0") -> Report:
    probe = Probe("other", available, "here", version, runtimes=("first", "second"), components={"runc": "1.1.5"})
    limits = (Limit("memory", UNKNOWN, "no image here"), Limit("memory", "enforced", "killed", runtime="second"))
    return Report((EngineReport(probe, limits, (Problem("a hole", "mend it", certain=True),)),), ())


def test_people_read_each_fact_on_a_line() -> None:
    lines = list(report().lines())
    assert lines[1:] == [
        "other: works",
        "  endpoint: here",
        "  version: 1.0",
        "  runtimes: first (its own choice), second",
        "  limit on memory: unknown (no image here)",
        "  limit on memory with second: enforced (killed)",
        "  a hole",
        "    what to do: mend it",
        "sandboxes can be started here",
    ]
    assert list(report(available=False).lines())[-1].startswith("no sandbox can be started here")


def test_an_engine_cannot_write_lines_of_its_own_or_steer_the_terminal() -> None:
    lines = list(report(version="1\nother: works\x1b]52;c;AAAA\x07\b\r!").lines())
    assert len(lines) == len(list(report().lines()))
    assert all(line.isprintable() for line in lines)


def test_programs_get_all_of_it() -> None:
    data = json.loads(json.dumps(report().data()))
    (engine,) = data["engines"]
    assert data["usable"] is True and data["problems"] == []
    assert engine["components"] == {"runc": "1.1.5"} and engine["runtimes"] == ["first", "second"]
    assert engine["limits"][1] == {"name": "memory", "verdict": "enforced", "why": "killed", "runtime": "second"}
    assert engine["problems"] == [{"what": "a hole", "advice": "mend it", "certain": True}]
