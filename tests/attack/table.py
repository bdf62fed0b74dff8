"""The table of attempts and outcomes, made from what the tests reported; nothing in it is written by hand.

`make attack` prints it. With ``ATTACK_TABLE=write`` a run of all of this folder writes it into the documents, between
the marker comments there.

It is a plugin of all tests, not of this folder: where two processes run them, a third, which opens no folder, has it.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tries import Breach

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
REFUSED, BOUNDED, SUCCEEDED, BROKEN = "refused", "bounded", "SUCCEEDED", "not tried"
_WORST_LAST = (REFUSED, BOUNDED, BROKEN, SUCCEEDED)
_ENGINES, _PROFILES = ("docker", "podman", "bubblewrap"), ("sealed", "standard", "open")
OURS = "our own code"  # what reads archives, makes the wish, and shows output: on no engine

Attempt = tuple[str, str]
_found: dict[Attempt, dict[str, str]] = {}
_first: dict[Attempt, int] = {}  # which of the tests makes it first: they need not end in their order
_POSITION = pytest.StashKey[int]()


def pytest_collection_finish(session: pytest.Session) -> None:
    for position, item in enumerate(session.items):
        item.stash[_POSITION] = position


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Write on a report which attempt it is about."""
    outcome = yield
    mark = item.get_closest_marker("attack")
    if mark is not None:
        breached = call.excinfo is not None and call.excinfo.errisinstance(Breach)
        passed, failed = BOUNDED if mark.kwargs.get("bounded") else REFUSED, SUCCEEDED if breached else BROKEN
        outcome.get_result().attack = (*mark.args, _place(item), passed, failed, item.stash[_POSITION])  # type: ignore[attr-defined] # pluggy's


def _place(item: pytest.Item) -> str:
    words = re.split(r"[-\]]", item.nodeid.partition("[")[2])
    engine = next((word for word in words if word in _ENGINES), None)
    profile = next((word for word in words if word in _PROFILES), "standard")
    return f"{engine} {profile}" if engine else OURS


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Take what became of a test."""
    if not hasattr(report, "attack") or report.outcome == "rerun":
        return
    group, what, place, passed, failed, position = report.attack
    if report.passed and report.when != "call":
        return
    outcome = passed if report.passed else failed
    places = _found.setdefault((group, what), {})
    _first[group, what] = min(position, _first.get((group, what), position))
    places[place] = max(places.get(place, REFUSED), outcome, key=_WORST_LAST.index)


def lines() -> list[str]:
    """Return the table of groups and places, and the totals."""
    if not _found:
        return []
    return ["", "attempts that were " + ", ".join(_WORST_LAST), *_groups(), "", totals()]


def totals() -> str:
    """Return all of it in one sentence."""
    counted = Counter(outcome for places in _found.values() for outcome in places.values())
    kinds = f"{counted[REFUSED]} refused, {counted[BOUNDED]} bounded, {counted[SUCCEEDED]} succeeded"
    broken = f", {counted[BROKEN]} not tried" if counted[BROKEN] else ""
    return f"{len(_found)} attempts, {counted.total()} with every engine and profile: {kinds}{broken}."


def _columns() -> list[str]:
    order = [f"{engine} {profile}" for engine in _ENGINES for profile in _PROFILES] + [OURS]
    return [column for column in order if any(column in places for places in _found.values())]


def _groups() -> list[str]:
    """Return a row for each group: how many attempts of each outcome at each place."""
    columns = _columns()
    rows = [["what", *columns]]
    for group in sorted({group for group, _ in _found}):
        cells = [group]
        for column in columns:
            outcomes = Counter(
                found[column] for (other, _), found in _found.items() if other == group and column in found
            )
            cells.append(", ".join(f"{outcomes[kind]} {kind}" for kind in _WORST_LAST if outcomes[kind]) or "-")
        rows.append(cells)
    return _markdown(rows)


def _attempts() -> list[str]:
    """Return a row for each attempt."""
    told = []
    for group in sorted({group for group, _ in _found}):
        rows = [["attempt", *_ENGINES, OURS]]
        for (other, what), places in sorted(_found.items(), key=lambda found: _first[found[0]]):
            if other == group:
                rows.append([what, *(_by_engine(places, engine) for engine in _ENGINES), places.get(OURS, "-")])
        empty = [column for column in range(1, len(rows[0])) if all(row[column] == "-" for row in rows[1:])]
        kept = [[cell for column, cell in enumerate(row) if column not in empty] for row in rows]
        told += [f"## {group[0].upper()}{group[1:]}", "", *_markdown(kept), ""]
    return told


def _by_engine(places: dict[str, str], engine: str) -> str:
    """Return an outcome for all profiles, or which profile had which."""
    by_outcome: dict[str, list[str]] = {}
    for profile in _PROFILES:
        if outcome := places.get(f"{engine} {profile}"):
            by_outcome.setdefault(outcome, []).append(profile)
    return "; ".join(f"{outcome} ({', '.join(profiles)})" for outcome, profiles in by_outcome.items()) or "-"


def _markdown(rows: list[list[str]]) -> list[str]:
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:])]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in lines():
        terminalreporter.write_line(line)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table into the documents, if that was asked for and nothing was left out."""
    config = session.config
    if hasattr(config, "workerinput"):  # the process of pytest-xdist that started this one has all of them
        return
    narrowed = config.option.keyword or config.option.markexpr or config.option.collectonly
    asked = [Path(argument.partition("::")[0]).resolve() for argument in config.args if "::" not in argument]
    whole = any(path in (HERE, *HERE.parents) for path in asked)
    if os.environ.get("ATTACK_TABLE") != "write" or narrowed or not whole or not _found:
        return
    _put("docs/security.md", "\n".join(["", *_groups(), "", totals(), ""]))
    _put("README.md", totals())
    _put("docs/attacks.md", "\n".join(["", *_attempts()]))


def _put(name: str, text: str) -> None:
    """Replace what stands between the two marker comments of a document."""
    path = ROOT / name
    before, begin, rest = path.read_text(encoding="utf-8").partition("<!-- attacks -->")
    _, end, after = rest.partition("<!-- /attacks -->")
    if not end:
        print(f"{name} has no place for the table")  # noqa: T201 # the end of a run is no place to fail
        return
    path.write_text(f"{before}{begin}{text}{end}{after}", encoding="utf-8")
