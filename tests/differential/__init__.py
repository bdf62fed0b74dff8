"""Random shell scripts, cell by cell through a session and whole through a plain shell in the same sandbox."""

from __future__ import annotations

import difflib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from sandbox_magic import CommandTimeout, Result, Sandbox
from sandbox_magic.session import Session

from .scripts import script

_REST = 20  # one script in so many rests between its cells, so that the checkpoint is written
_REST_SECONDS = 0.08
_SECONDS = 30
PLAIN = {"zsh": "zsh -f"}  # as ours: without the files of a user


@dataclass(frozen=True)
class Outcome:
    """What is compared.

    Attributes:
        stdout, stderr: What was printed, folded.
        exit_code: How it ended.
    """

    stdout: str
    stderr: str
    exit_code: int | None


# What output is compared without, see docs/cells.md: where an error was (a cell is no file), how deep bash nests its
# trace, what it says of processes that a signal has ended, and how an interactive one takes its leave.
_FOLDS = (
    (r"^(?:\w+:)?(?:/tmp/script|\(eval\)|zsh|ff|gg):(?:\w+:)?(?:\d+: ?)", "sh: "),  # zsh
    (r"^(?:/tmp/script|sh|/bin/sh): (?:line )?\d+: (?:eval: )?", "sh: "),
    (r"(^|\[)(?:/tmp/script|bash): (?:eval: )?(?:line \d+: )?", r"\1sh: "),
    (r"^/proc/\d+/fd/5: line \d+: ", "sh: "),
    (r"^\+[^ ]+:\d+>(?= )", "+"),  # zsh
    (r"^\++(?=\S* )", "+"),
    (r"^(?:sh: +\d+ )?(?:Terminated|Killed)\b.*\n", ""),
    (r"^sh: +(?:eval: )?([\w.]+: )?line \d+: ", r"sh: \1"),
    (r"^exit\n", ""),
    (r"^(?:\(pwd now: .*\)|sh: .*(?:terminated|killed) .*)\n", ""),  # zsh
)


def folded(text: str) -> str:
    """Return what of an output must be the same."""
    for pattern, instead in _FOLDS:
        text = re.sub(pattern, instead, text, flags=re.MULTILINE)
    return text


def _in_time(place: Session | Sandbox, code: str, stdin: str | None = None) -> Result:
    """Run, and let a difference show what has taken too long."""
    try:
        return place.run(code, timeout=_SECONDS, **({} if stdin is None else {"stdin": stdin}))
    except CommandTimeout as error:
        return replace(error.result, exit_code=None)


def through_session(box: Sandbox, cells: list[str], *, rest: float = 0) -> list[Outcome]:
    """Run the cells one after another in a session of their own; return what was seen after each."""
    machine = box._machine
    assert machine is not None
    session = Session(machine, env={"LANG": "C.UTF-8", "HOME": machine.home}, shell=box.spec.shell, alone=False)
    seen: list[Outcome] = []
    stdout = stderr = ""
    try:
        for cell in cells:
            result = _in_time(session, cell)
            stdout, stderr = stdout + result.stdout, stderr + result.stderr
            seen.append(Outcome(folded(stdout), folded(stderr), result.exit_code))
            if result.shell_ended:
                break
            time.sleep(rest)
        return seen
    finally:
        session.forget()
        session.close()


def through_shell(box: Sandbox, cells: list[str], shell: str) -> Outcome:
    """Run the same as one script."""
    text = "\n".join(cells) + "\n"
    result = _in_time(box, f"cat >/tmp/script; cd /work; {PLAIN.get(shell, shell)} /tmp/script </dev/null", stdin=text)
    return Outcome(folded(result.stdout), folded(result.stderr), result.exit_code)


def _same(ours: list[Outcome], plain: Outcome, cells: list[str]) -> bool:
    return ours[-1] == plain


def _error_ends_the_script(ours: list[Outcome], plain: Outcome, cells: list[str]) -> bool:
    """The script has ended with an error of the shell; up to there we did the same, and went on."""
    said = plain.stderr.splitlines()[-2:]
    return (
        plain.exit_code != 0
        and any(re.match(_FATAL, line) for line in said)
        and ours[-1].stdout.startswith(_before_farewell(plain.stdout))
        and ours[-1].stderr.startswith(plain.stderr)
    )


def _cells_are_parsed_apart(ours: list[Outcome], plain: Outcome, cells: list[str]) -> bool:
    """Something left open in a cell: an error there, and in a script at the end of the file, or where it is closed."""
    error = re.compile("syntax error|parse error|unmatched")
    return error.search(plain.stderr) is not None and any(
        _before_farewell(plain.stdout).startswith(seen.stdout) and error.search(seen.stderr) for seen in ours
    )


def _errexit_sees_the_last_status(ours: list[Outcome], plain: Outcome, cells: list[str]) -> bool:
    """Our shell has ended under `set -e` with the status of a cell, where a script would have gone on."""
    done = cells[: len(ours)]
    return (
        len(ours) < len(cells)
        and ours[-1].exit_code != 0
        and any(re.search(r"set -e", cell) for cell in done)
        and plain.stdout.startswith(_before_farewell(ours[-1].stdout))
        and plain.stderr.startswith(ours[-1].stderr)
    )


def _before_farewell(stdout: str) -> str:
    """Return what was printed before the EXIT trap of scripts.py."""
    return re.sub(r"bye \d+ \w+\n\Z", "", stdout)


_FATAL = (
    r"sh: .*(unbound variable|not set|never: w\w+|never: aXb|syntax error|No such file|not found|Illegal|bad|"
    r"unexpected|[Bb]ad (number|substitution)|readonly|read only|can't|[Dd]ivi(sion|de)|expecting|"
    r"parse error|read-only|no such option|not an ident)"
)


def _zsh_reads_a_cell_whole(ours: list[Outcome], plain: Outcome, cells: list[str]) -> bool:
    return any("unalias echo" in cell for cell in cells)


SAME = "the same"
RULES: dict[str, Callable[[list[Outcome], Outcome, list[str]], bool]] = {
    SAME: _same,
    "an error that ends a script does not end the session": _error_ends_the_script,
    "each cell is parsed by itself": _cells_are_parsed_apart,
    "under set -e the last status of a cell counts": _errexit_sees_the_last_status,
}

ZSH = {"zsh reads a cell whole, so an alias counts from the next one on": _zsh_reads_a_cell_whole}


@dataclass
class Report:
    """What was found.

    Attributes:
        cells: How many were run.
        counts: How many scripts did the same, or differ for a reason that docs/cells.md gives.
        unexplained: What differs without one, each with its script.
    """

    cells: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.counts.total() + len(self.unexplained)} scripts, {self.cells} cells"]
        lines += [f"{count:6}  {name}" for name, count in self.counts.most_common()]
        return "\n".join([*self.unexplained, *lines, f"{len(self.unexplained):6}  differ, and nothing explains it"])


def compare(box: Sandbox, seeds: Iterable[int], shell: str) -> Report:
    """Run the scripts of these seeds in both ways."""
    report = Report()
    for seed in seeds:
        cells = script(seed, shell)
        ours = through_session(box, cells, rest=0 if seed % _REST else _REST_SECONDS)
        plain = through_shell(box, cells, shell)
        report.cells += len(ours)
        rules = RULES | ZSH if shell == "zsh" else RULES
        for name, explains in rules.items():
            if explains(ours, plain, cells):
                report.counts[name] += 1
                break
        else:
            report.unexplained.append(_difference(seed, cells, ours, plain))
    return report


def _difference(seed: int, cells: list[str], ours: list[Outcome], plain: Outcome) -> str:
    """Return one for people."""
    lines = [f"=== seed {seed}", "\n-----\n".join(cells[1:-1])]
    for name in ("stdout", "stderr"):
        ends = [getattr(outcome, name).splitlines() for outcome in (ours[-1], plain)]
        lines += difflib.unified_diff(*ends, f"{name} of ours", f"{name} of plain", lineterm="", n=1)
    codes = [seen.exit_code for seen in ours]
    return "\n".join([*lines, f"exit codes: ours {codes}, plain {plain.exit_code}", ""])
