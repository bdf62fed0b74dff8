"""What works here, how well, and what to do about the rest: for `sandbox-magic doctor` and `%sandboxctl doctor`."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from itertools import repeat

from sandbox_magic import engines
from sandbox_magic._version import __version__
from sandbox_magic.ansi import sanitize
from sandbox_magic.engines import holes
from sandbox_magic.engines.base import Engine, Probe
from sandbox_magic.proof import NOT_ENFORCED, Limit, prove, unproved
from sandbox_magic.spec import PROFILES


@dataclass(frozen=True, slots=True)
class Problem:
    """Something to know or to mend.

    Attributes:
        what: What is wrong, or may be.
        advice: What to do about it.
        certain: It was seen, not concluded from a version.
    """

    what: str
    advice: str
    certain: bool


@dataclass(frozen=True, slots=True)
class EngineReport:
    """What was found out about one engine; without limits if it does not work."""

    probe: Probe
    limits: tuple[Limit, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What was found out here.

    Attributes:
        engines: In the order in which ``auto`` asks them.
        problems: Of the programs around the sandboxes.
    """

    engines: tuple[EngineReport, ...]
    problems: tuple[Problem, ...]

    @property
    def usable(self) -> bool:
        """Whether a sandbox can be started."""
        return any(report.probe.available for report in self.engines)

    def data(self) -> dict[str, object]:
        """Return all of it for programs."""
        return {
            "version": __version__,
            "python": platform.python_version(),
            "usable": self.usable,
            "engines": [
                asdict(report.probe)
                | {"limits": list(map(asdict, report.limits)), "problems": list(map(asdict, report.problems))}
                for report in self.engines
            ],
            "problems": list(map(asdict, self.problems)),
        }

    def lines(self) -> Iterator[str]:
        """Yield all of it for people; whatever an engine said of itself cannot leave its line."""
        system = f"{platform.system()} {platform.machine()}"
        yield f"sandbox-magic {__version__}, Python {platform.python_version()}, {system}"
        for report in self.engines:
            yield f"{report.probe.name}: {'works' if report.probe.available else 'does not work'}"
            for line in _engine_lines(report):
                yield f"  {_one_line(line)}"
        if self.problems:
            yield "around the sandboxes:"
            yield from (f"  {line}" for problem in self.problems for line in _problem_lines(problem))
        yield (
            "sandboxes can be started here"
            if self.usable
            else ("no sandbox can be started here until one of these works")
        )


def examine(*, image: str | None = None, quick: bool = False) -> Report:
    """Find out what works here.

    Args:
        image: The image to try the limits with; `None` is the default one.
        quick: Do not try the limits, which takes some seconds and starts sandboxes (that end again).
    """
    around = {"Python": platform.python_version()}
    with contextlib.suppress(PackageNotFoundError):  # it may be another environment's, which cannot be told from here
        around["JupyterLab"] = installed_version("jupyterlab")
    found = engines.every()
    with ThreadPoolExecutor(len(found), "sandbox-doctor") as pool:  # most of it is waiting for the engines
        reports = tuple(pool.map(_examined, found, repeat(image), repeat(quick)))
    return Report(reports, tuple(_possible(around)))


def _examined(engine: Engine, image: str | None, quick: bool) -> EngineReport:
    probe = engine.probe()
    limits: tuple[Limit, ...] = ()
    if probe.available:
        limits = unproved("not tried") if quick else _proved(engine, probe, image)
    problems = [_problem(holes.named(name), probe.version, certain=True) for name in probe.holes]
    problems += _possible(probe.components)
    problems += [_missing(limit) for limit in limits if limit.verdict == NOT_ENFORCED]
    return EngineReport(probe, limits, tuple(problems))


def _proved(engine: Engine, probe: Probe, image: str | None) -> tuple[Limit, ...]:
    """Prove the limits with the engine's own choice of runtime, and with the one that a profile would take."""
    wanted = {profile.runtime for profile in PROFILES.values()}
    others = [name for name in probe.runtimes[1:] if name in wanted]
    with_others = [prove(engine, image=image, runtime=name) for name in others]
    return sum(with_others, start=prove(engine, image=image))


def _problem(hole: holes.Hole, version: str, *, certain: bool = False) -> Problem:
    advice = f"get {hole.component} {holes.cure(hole, version)}"
    if not certain:
        advice += ", or a package of your distribution whose changelog names the fix"
    if hole.advice:
        advice += f"; until then: {hole.advice}"
    have = "has" if certain else "may have"
    return Problem(f"{hole.component} {version} {have} {hole.names}: {hole.reason}", advice, certain=certain)


def _possible(parts: Mapping[str, str]) -> list[Problem]:
    return [_problem(hole, parts[hole.component]) for hole in holes.possible(parts)]


def _missing(limit: Limit) -> Problem:
    where = f" with the runtime {limit.runtime}" if limit.runtime else ""
    return Problem(
        f"nothing limits the {limit.name} of a sandbox{where}",
        "run only what you trust, or let the host limit it: control groups of version 2 handed down to this user, "
        "an engine that runs as root, a runtime that does not ignore them",
        certain=True,
    )


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in sanitize(text))


def _engine_lines(report: EngineReport) -> Iterator[str]:
    probe = report.probe
    runtimes = ", ".join(name + " (its own choice)" * (name == probe.runtimes[0]) for name in probe.runtimes)
    for key, value in (("endpoint", probe.endpoint), ("version", probe.version), ("runtimes", runtimes)):
        if value:
            yield f"{key}: {value}"
    for limit in report.limits:
        where = f" with {limit.runtime}" if limit.runtime else ""
        yield f"limit on {limit.name}{where}: {limit.verdict} ({limit.why})"
    yield from probe.detail.splitlines()
    for problem in report.problems:
        yield from _problem_lines(problem)


def _problem_lines(problem: Problem) -> Iterator[str]:
    yield problem.what
    yield f"  what to do: {problem.advice}"
