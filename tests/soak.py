"""Thousands of mixed cells in one session: each does what it must, and nothing grows.

``python -m tests.soak [CELLS [ENGINE [SHELL [SEED]]]]`` runs so many and prints what it has seen.
"""

from __future__ import annotations

import gc
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path

from sandbox_magic import CommandTimeout, Result, Sandbox
from sandbox_magic.testing.host import descendants

_SAMPLES = 40
_WARM = 0.25  # the part of the samples in which caches fill
_SETTLE_SECONDS = 20.0
_MEMORY_MAX = 6 << 20  # bytes that our memory may grow by, whatever the number of cells: what allocators keep


class Soak:
    """One sandbox, and the cells that it is given. Each method is a kind of cell."""

    def __init__(self, box: Sandbox, seed: int) -> None:
        self.box = box
        self.rng = random.Random(seed)
        self.number = 0  # of the cell: its output names it, so no other cell's output can stand in for it
        self.counted = 0  # what $n must be: exported, so a new shell has it too
        self.kinds: Counter[str] = Counter()
        box.run("export n=0", check=True)
        self.zsh = box.status()["shell"] == "zsh"
        terminals = box.run("script --version").exit_code == 0  # of util-linux
        self.chances = {kind: often for kind, often in KINDS.items() if terminals or kind is not Soak.terminal}

    def step(self) -> None:
        """Run one more cell."""
        kind = self.rng.choices(list(self.chances), list(self.chances.values()))[0]
        self.number += 1
        self.kinds[kind.__name__] += 1
        kind(self)

    def expect(
        self,
        code: str,
        stdout: str = "",
        exit_code: int = 0,
        *,
        stderr: str | None = "",
        ended: bool = False,
        **how: object,
    ) -> None:
        """Run a cell and check all that is known of it."""
        result = self.box.run(code, **how)  # type: ignore[arg-type]
        self.check(result, stdout, exit_code, stderr=stderr, ended=ended)

    def check(
        self, result: Result, stdout: str, exit_code: int, *, stderr: str | None = "", ended: bool = False
    ) -> None:
        seen = result.stdout, result.exit_code, result.shell_ended
        assert seen == (stdout, exit_code, ended), f"cell {self.number}: {result!r} {result.stderr[-300:]!r}"
        assert stderr is None or result.stderr == stderr, f"cell {self.number}: {result!r} {result.stderr[-300:]!r}"

    def success(self) -> None:
        self.expect(f"echo {self.number}", f"{self.number}\n")

    def failure(self) -> None:
        code = self.rng.randrange(1, 256)
        self.expect(f"printf %s {self.number}; (exit {code})", str(self.number), code)

    def both_streams(self) -> None:
        self.expect(
            f"echo out {self.number}; echo err {self.number} >&2", f"out {self.number}\n", stderr=f"err {self.number}\n"
        )

    def counter(self) -> None:
        self.counted += 1
        self.expect("export n=$((n + 1)); echo $n", f"{self.counted}\n")

    def shell_things(self) -> None:
        text = f"f() {{ local x=$1; cat <<END\n$x\nEND\n}}\nfor i in 1 2; do f $i-{self.number}; done; unset -f f"
        self.expect(text, f"1-{self.number}\n2-{self.number}\n")

    def big_output(self) -> None:
        size = self.rng.choice((100_000, 1_000_000, 9_000_000))  # the last one goes to a file
        self.expect(f"head -c {size} /dev/zero | tr '\\0' x; echo {self.number}", "x" * size + f"{self.number}\n")

    def stdin(self) -> None:
        text = f"{self.number}\n" * self.rng.choice((1, 1000))
        self.expect("cat", text, stdin=text)

    def streamed_stdin(self) -> None:
        self.expect("cat", f"a{self.number}b", stdin=iter(["a", f"{self.number}", "b"]))

    def unread_stdin(self) -> None:
        self.expect("read -r x; echo $x", f"{self.number}\n", stdin=iter([f"{self.number}\n", *["more\n" * 9999] * 9]))

    def question(self) -> None:
        self.expect("read -r x; echo $x", f"{self.number}\n", ask=lambda: str(self.number))

    def background(self) -> None:
        self.expect(f"sleep 0.05 & (sleep 0.01; echo {self.number}; exit 3) & wait $!; echo $?", f"{self.number}\n3\n")

    def job(self) -> None:
        self.check(self.box.start_job(f"echo {self.number}; exit 3").wait(30), f"{self.number}\n", 3, ended=True)

    def environment(self) -> None:
        self.expect("echo $given; pwd; cd /", f"{self.number}\n/tmp\n", env={"given": str(self.number)}, cwd="/tmp")

    def terminal(self) -> None:
        self.expect(f"test -t 1; echo $? {self.number}", f"0 {self.number}\n", tty=True)

    def syntax_error(self) -> None:
        text = self.rng.choice(("if", "echo 'x", "echo )", "( echo", 'x="${y', "fi"))
        # zsh reads a cell whole before it runs any of it.
        before, code = ("", 1) if self.zsh else (f"{self.number}\n", 2)
        self.expect(f"echo {self.number}\n{text}", before, code, stderr=None)

    def leave(self) -> None:
        code = self.rng.randrange(128)  # 159 is shown as unknown
        self.expect(f"echo {self.number}; exit {code}", f"{self.number}\n", code, ended=True)

    def errexit(self) -> None:
        self.expect(f"echo {self.number}; set -e; false; echo no", f"{self.number}\n", 1, ended=True)
        self.box.run("set +e")  # also if a checkpoint has brought it back

    def killed(self) -> None:
        self.expect(f"echo {self.number}; kill -9 $$", f"{self.number}\n", 137, ended=True)

    def replaced(self) -> None:
        self.expect(f"exec sh -c 'echo {self.number}; exit 4'", f"{self.number}\n", 4, ended=True)

    def closed_streams(self) -> None:
        self.expect(f"echo {self.number}; exec >&- 2>&-", f"{self.number}\n")
        self.box.run("exit")  # the streams of a cell are the shell's

    def timeout(self) -> None:
        code, step = self.rng.choice(
            (("sleep 30", "SIGINT"), ("while :; do :; done", "SIGINT"), ("sleep 30 | cat", "SIGINT"))
        )
        try:
            result = self.box.run(f"echo {self.number}; {code}", timeout=0.2)
        except CommandTimeout as error:
            result = error.result
        self.check(result, f"{self.number}\n", 130, stderr=None)
        assert result.timed_out and result.stopped_by == step, repr(result)

    def interrupt(self) -> None:
        timer = threading.Timer(0.1, self.box.interrupt)

        def begun(_output: object) -> None:
            if not timer.ident:
                timer.start()

        result = self.box.run(f"echo {self.number}; sleep 30", on_output=begun)
        timer.join()
        self.check(result, f"{self.number}\n", 130, stderr=None)
        assert result.interrupted, repr(result)

    def stubborn(self) -> None:
        try:
            result = self.box.run(f"echo {self.number}; (trap '' INT; exec sleep 30)", timeout=0.1)
        except CommandTimeout as error:
            result = error.result
        self.check(result, f"{self.number}\n", 143, stderr=None)
        assert result.stopped_by == "SIGTERM", repr(result)


# How often each comes, of about 1000.
KINDS: dict[Callable[[Soak], None], float] = {
    Soak.success: 300,
    Soak.failure: 150,
    Soak.both_streams: 120,
    Soak.counter: 120,
    Soak.shell_things: 60,
    Soak.syntax_error: 60,
    Soak.stdin: 60,
    Soak.environment: 30,
    Soak.background: 30,
    Soak.big_output: 12,
    Soak.leave: 20,
    Soak.errexit: 6,
    Soak.killed: 10,
    Soak.replaced: 10,
    Soak.closed_streams: 4,
    Soak.streamed_stdin: 8,
    Soak.unread_stdin: 4,
    Soak.question: 2,
    Soak.job: 6,
    Soak.terminal: 6,
    Soak.timeout: 5,
    Soak.interrupt: 5,
    Soak.stubborn: 0.3,
}


@dataclass(frozen=True)
class Sample:
    """What is held at one moment.

    Attributes:
        cells: How many have been run.
        memory: Our resident bytes.
        descriptors: Our open files.
        threads: Our threads.
        processes: Those that descend from us.
        inside: Processes inside the sandbox.
        files: Entries of the folders inside that everybody may write to.
    """

    cells: int
    memory: int
    descriptors: int
    threads: int
    processes: int
    inside: int
    files: int

    @classmethod
    def take(cls, soak: Soak) -> Sample:
        """Look, once all is quiet."""
        look = "set -- /proc/[0-9]*; echo $# $(ls -A /tmp /var/tmp /dev/shm /run | wc -l)"
        inside, files = map(int, soak.box.run(look).stdout.split())
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        descriptors = len(os.listdir("/dev/fd"))  # noqa: PTH208 # names are enough
        memory = pages * os.sysconf("SC_PAGE_SIZE")
        return cls(soak.number, memory, descriptors, threading.active_count(), len(descendants()), inside, files)

    def counts(self) -> tuple[int, ...]:
        """Return what must never grow."""
        return astuple(self)[2:]


@dataclass
class Report:
    """What was seen."""

    samples: list[Sample] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def growth(self) -> list[str]:
        """Return what has grown after the warm-up."""
        warm = self.samples[: max(1, int(len(self.samples) * _WARM))]
        most = replace(warm[-1], memory=max(sample.memory for sample in warm))
        last = self.samples[-1]
        found = [f"{name}: {old} -> {new}" for name, old, new in _named(most, last) if new > old]
        if last.memory > most.memory + _MEMORY_MAX:
            found.append(f"memory: {most.memory} -> {last.memory}")
        return found

    def __str__(self) -> str:
        lines = ["   cells memory/MB descriptors threads processes inside files"]
        lines += [
            f"{s.cells:8} {s.memory / 1e6:9.2f} {s.descriptors:11} {s.threads:7} {s.processes:9} {s.inside:6} "
            f"{s.files:5}"
            for s in self.samples
        ]
        lines.append(", ".join(f"{name} {count}" for name, count in self.kinds.most_common()))
        grown = self.growth()
        verdict = "grown: " + "; ".join(grown) if grown else "every outcome was right, and nothing has grown"
        return "\n".join([*lines, f"{self.samples[-1].cells} cells in {self.seconds:.0f} s: {verdict}"])


def _named(before: Sample, after: Sample) -> list[tuple[str, int, int]]:
    names = ("descriptors", "threads", "processes", "inside", "files")
    return [(name, getattr(before, name), getattr(after, name)) for name in names]


def soak(box: Sandbox, cells: int, seed: int = 0, samples: int = _SAMPLES) -> Report:
    """Run so many cells; an outcome that is wrong raises."""
    run, report = Soak(box, seed), Report()
    begun = time.monotonic()
    while run.number < cells:
        for _ in range(min(max(1, cells // samples), cells - run.number)):
            run.step()
        report.samples.append(_settled(run, report.samples))
    report.kinds, report.seconds = run.kinds, time.monotonic() - begun
    return report


def _settled(run: Soak, before: list[Sample]) -> Sample:
    """Take a sample; again while there is more than there was: what ends in the background takes a moment."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        sample = Sample.take(run)
        grown = before and any(new > old for _, old, new in _named(before[-1], sample))
        if not grown or time.monotonic() > deadline:
            return sample
        time.sleep(0.2)


def main() -> int:
    """Run as many as asked."""
    cells, engine, shell, seed, *_ = [*sys.argv[1:], *("20000", "bubblewrap", "bash", "0")[len(sys.argv) - 1 :]]
    with Sandbox(engine=engine, shell=shell, spare=False) as box:
        report = soak(box, int(cells), int(seed))
    sys.stdout.write(f"{report}\n")
    return 1 if report.growth() else 0


if __name__ == "__main__":
    sys.exit(main())
