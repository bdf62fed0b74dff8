"""`Sandbox`: the object that people hold. A machine of an engine, one session in it, files in and out."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from sandbox_magic import files
from sandbox_magic.asking import Ask, Input
from sandbox_magic.bounds import Bounds
from sandbox_magic.echo import Echo
from sandbox_magic.egress.gate import Access
from sandbox_magic.engines import fallback_note, find_engine
from sandbox_magic.engines.base import IMAGES, Machine, Progress, silent
from sandbox_magic.errors import CommandTimeout, EngineUnavailable, SessionClosed, ShellExited, TransferError
from sandbox_magic.facts import inside
from sandbox_magic.feed import Source
from sandbox_magic.jobs import Job, Jobs
from sandbox_magic.network import Network, Wish
from sandbox_magic.protocol import LateOutput, Output
from sandbox_magic.result import Result
from sandbox_magic.running import Tick
from sandbox_magic.session import Session
from sandbox_magic.spare import Kind, session_in, spares
from sandbox_magic.spec import DEFAULT_IMAGE, SandboxSpec, changed


class Sandbox:
    """An isolated place with one persistent shell.

    It starts with `start`, or by itself with the first `run`; it ends with `close`, with the ``with`` block, or with
    this process, however that ends. Thread-safe; one command at a time.

    Attributes:
        spec: The wish.
        name: What the user calls it.
        last: The result of the last run, also when that raised; `None` before the first.
        jobs: What was started in its background.
    """

    def __init__(
        self,
        image: str | None = None,
        *,
        spec: SandboxSpec | None = None,
        name: str = "",
        host: str | None = None,
        port: int = 2375,
        on_progress: Progress = silent,
        **wish: Any,
    ) -> None:
        """Describe a sandbox; nothing is started.

        Args:
            image: The image; ``debian:stable-slim`` if not given.
            spec: A whole wish, which `image` and `wish` then change.
            name: A name for messages.
            host: The machine of a Docker Engine that listens on TCP without TLS; short for ``docker_host=``.
            port: Its port.
            on_progress: Called with one-line texts while something takes its time, and with ``""`` when it is done.
            **wish: Any field of `SandboxSpec`; ``memory`` may be text such as ``"512m"``, ``mounts`` a list of
                ``"SRC:DST[:rw]"``, ``env`` a mapping.

        Raises:
            InvalidOptions: A field is unknown or its value cannot be.
        """
        if image is not None:
            wish["image"] = image
        if host is not None:
            wish.setdefault("docker_host", f"tcp://{host}:{port}")
        self.spec = changed(spec or SandboxSpec(), wish)
        self.name = name
        self.last: Result | None = None
        self._on_progress = on_progress
        self._lock = threading.RLock()
        self._owner = os.getpid()
        self._machine: Machine | None = None
        self._session: Session | None = None
        self._closed = False
        self._notes: list[str] = []
        self._bounds: Bounds | None = None
        self._network = Network(self.spec, on_progress, self._notes.append)
        self.jobs = Jobs(lambda: self._session)

    @property
    def started(self) -> bool:
        """Whether it runs."""
        return self._session is not None and not self._session.closed

    @property
    def online(self) -> bool:
        """Whether the sandbox as a whole is on the network."""
        return self._network.online

    def start(self) -> Sandbox:
        """Start it if it does not run, and return it.

        Raises:
            EngineUnavailable: No engine answers.
            ImageNotFound: The image cannot be had.
            LimitNotEnforced, EngineError, SessionClosed: A limit does not hold; the engine refused; it was closed.
        """
        self._refuse_in_child()  # before the lock, which another thread may have held at the moment of the fork
        with self._lock:
            if self._closed:
                raise SessionClosed("this sandbox is closed; make a new one")
            if not self.started:
                self._start()
        return self

    def _start(self) -> None:
        self._end()
        self._on_progress("starting the sandbox")
        spec = replace(self.spec, network=self._network.wish)
        engine = find_engine(spec)
        engine.check(spec)
        if spec.engine == "auto" and (note := fallback_note(engine)):
            self._notes.append(note)
        if IMAGES in engine.capabilities and spec.image is None:
            self.spec, spec = replace(self.spec, image=DEFAULT_IMAGE), replace(spec, image=DEFAULT_IMAGE)
        made = spares().get(Kind(engine, spec, self.name, tuple(self._network.env.items())), self._on_progress)
        try:
            self._network.begin(made.machine)
        except BaseException:
            self._network.end()
            made.close()
            raise
        self._machine, self._session, self._bounds = made.machine, made.session, made.bounds
        self._on_progress("")

    def _end(self, *, beside: bool = False) -> None:
        self.jobs.close()
        session, self._session = self._session, None
        machine, self._machine = self._machine, None
        if session is not None:
            session.close()
        self._network.end()
        if machine is not None:
            try:
                if not (beside and spares().retire(machine)):
                    machine.close()
            finally:
                spares().closed()

    def _refuse_in_child(self) -> None:
        if os.getpid() != self._owner:
            raise SessionClosed(
                "this sandbox belongs to the process that this one was forked from; make another one here"
            )

    def reset(self) -> None:
        """End what there is and start afresh from the image, with the same wish."""
        self._refuse_in_child()
        with self._lock:
            self._end(beside=True)
            self._network = Network(self.spec, self._on_progress, self._notes.append)
            self.start()

    def close(self) -> None:
        """End it with everything in it. Again is allowed.

        Raises:
            EngineError: The engine could not be told; the sandbox ends with this process all the same.
        """
        self._closed = True
        if os.getpid() != self._owner:
            return  # a forked child: the sandbox is its parent's
        if (session := self._session) is not None:
            session.close()  # first, and without the lock: a command may be running
        with self._lock:
            self._end()

    def __enter__(self) -> Sandbox:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- commands

    def run(  # noqa: PLR0913 # each is a wish of its own, and most are left out
        self,
        code: str,
        *,
        timeout: float | None = None,
        stdin: str | bytes | Source | None = None,
        ask: Ask | None = None,
        ask_secret: Ask | None = None,
        check: bool = False,
        echo: bool = False,
        on_output: Callable[[Output], object] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        network: Wish = False,
        tick: Tick | None = None,
        tty: bool = False,
    ) -> Result:
        """Run any shell text in the persistent shell and return what it did.

        Args:
            code: One line or many; `cd`, variables and functions stay for the next run.
            timeout: Seconds; then it is stopped, by SIGINT first.
            stdin: What it reads: text, bytes, an iterator of them, or a file; end of file at once if `None`.
            ask: Called whenever it waits for input: see `Input`.
            ask_secret: Called instead where what is typed is not shown.
            check: Raise if the exit code is not 0.
            echo: Write what it prints to `sys.stdout` and `sys.stderr` as it comes.
            on_output: Called in this thread with each `Output` as it comes: some bytes, which may end within a line.
            env: Exported before, and kept, as ``export`` does.
            cwd: Where the shell goes before, and stays, as ``cd`` does.
            network: Be online for this one run; or the names that it may reach beside those of the sandbox.
            tick: For displays: see `Session.run`.
            tty: On a terminal: see `Session.run`.

        Raises:
            CommandFailed: With `check`, when the exit code is not 0 or unknown.
            CommandTimeout: It did not finish in time; with the partial result.
            KeyboardInterrupt: It was interrupted; `last` has the result.
            SessionBusy, EngineError: Another thread runs a command here; the engine failed.
        """
        given = Input(stdin, ask, ask_secret)
        session = self._running()
        assert self._machine is not None
        if self._bounds is not None:
            self._bounds.settle()
        before = session.last
        try:
            with self._network.during(self._machine, network, lambda: session.closed) as proxies:
                try:
                    session.run(
                        code,
                        timeout=timeout,
                        stdin=given,
                        on_output=Echo(on_output) if echo else on_output,
                        env={**proxies, **env} if proxies and env else env or proxies,
                        cwd=cwd,
                        tick=tick,
                        tty=tty,
                    )
                except ShellExited as error:
                    raise self._explained(error) from error
                finally:
                    if session.last is not before:
                        self.last = session.last
                    self._add_notes()
        except CommandTimeout as error:
            error.result = self.last or error.result  # with what is known of the sandbox, too
            raise
        assert self.last is not None
        return self.last.check() if check else self.last

    def start_job(
        self,
        code: str,
        *,
        name: str = "",
        timeout: float | None = None,
        stdin: str | bytes | Source | None = None,
        on_output: Callable[[Output], object] | None = None,
        on_end: Callable[[Job], object] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> Job:
        """Run code in a shell of its own in this sandbox and return at once, with its handle.

        That shell begins as the persistent one stands: directory, variables, functions, aliases, options, umask (while
        a command runs, as it stood when it last rested; dash and busybox cannot list functions). The job ends with the
        sandbox at the latest. Its name is for `jobs`, ``job1`` and so on if empty; `on_output`, and `on_end` with the
        job when it has ended, are called in the job's own thread; the rest is as for `run`.

        Raises:
            InvalidOptions: A running job has this name, or `env` or `cwd` cannot be set; nothing was run.
            EngineError: The engine failed.
        """
        given = Input(stdin)
        session = self._running()
        self.jobs.check(name)
        own = session_in(self._ready(), self.spec, self._network.env, alone=False)
        try:
            job = self.jobs.add(name, code, own, env=env or {}, cwd=cwd, of=session)
        except ShellExited as error:
            raise self._explained(error) from error
        job.start(timeout=timeout, given=given, on_output=on_output, on_end=on_end)
        return job

    def interrupt(self) -> None:
        """Stop the running command, from another thread; again: harder. Nothing happens when none runs."""
        if (session := self._session) is not None:
            session.interrupt()

    def late_output(self) -> list[LateOutput]:
        """Take what background jobs have printed after the end of their command, each piece with its `job`."""
        return self._session.link.late.take() if self._session is not None else []

    def _running(self) -> Session:
        self._refuse_in_child()
        session = self._session
        if session is not None and session.usable():
            return session
        with self._lock:
            gone = self._session is not None and not self._session.usable()
            if gone:
                with contextlib.suppress(EngineUnavailable):  # the way to it is lost: it ends without us, by its lease
                    self._end()
                self._notes.append(
                    "the sandbox had ended since the last cell; this is a new one, its files are new too"
                )
            self.start()
            assert self._session is not None
            return self._session

    def _explained(self, error: ShellExited) -> ShellExited:
        return self._bounds.explained(error) if self._bounds is not None else error

    def _add_notes(self) -> None:
        if self._bounds is not None:
            self._notes += self._bounds.remarks()
            if self.last is not None and (limits := self._bounds.look(self.last)):
                self.last = replace(self.last, limits=limits)
                self._notes += limits
        if self._notes and self.last is not None:
            self.last = replace(self.last, notes=(*self._notes, *self.last.notes))
            self._notes.clear()

    # ---- files, network, facts

    def put(self, source: str | Path, target: str = "./") -> None:
        """Copy a host file or folder into the sandbox.

        Args:
            source: The file or folder here.
            target: Where to: a folder if it is one or ends with a slash, else the new name; relative to the first
                directory, which it is if not given. Folders that are missing on the way are made.

        Raises:
            TransferError: It cannot be read or written, or holds what cannot be copied.
        """
        control = self._running().control
        files.put(self._ready(), control, Path(source), target, cwd=self.spec.cwd, shared=self.spec.shared)

    def get(self, source: str, target: str | Path = ".") -> list[Path]:
        """Copy a file or folder out of the sandbox; return the files that were written.

        Args:
            source: The file or folder inside; relative to the first directory.
            target: An existing folder, or the new name; what ends with a slash must be a folder.

        Raises:
            TransferError: It is not there, or holds links, devices or names that are refused.
        """
        if str(target).endswith("/") and not Path(target).is_dir():
            raise TransferError(f"get: there is no folder {target} here; make it, or name a file")
        return files.get(self._ready(), source, Path(target), cwd=self.spec.cwd, shared=self.spec.shared)

    def network(self, online: bool) -> None:
        """Put the whole sandbox on the network, or take it off, until told otherwise."""
        self._network.switch(self._ready(), online)

    def allow(self, *names: str) -> None:
        """Let it reach these names, until told otherwise: see `Destination`; its files and state stay."""
        self._network.allow(self._ready(), names)

    def deny(self, *names: str) -> None:
        """Let it reach these names no more, also where another rule covers them; what is connected is cut."""
        self._network.deny(names)

    @property
    def network_log(self) -> tuple[Access, ...]:
        """What it wanted to reach by name, and what became of it; the latest last."""
        return self._network.gate.log()

    def _ready(self) -> Machine:
        self._refuse_in_child()
        with self._lock:
            self.start()
            assert self._machine is not None
            return self._machine

    def status(self) -> dict[str, object]:
        """Return facts, from the engine and from inside; starts nothing."""
        if self._machine is None or self._session is None or not self._session.usable():
            return {"running": False, "image": self.spec.image or DEFAULT_IMAGE, "profile": self.spec.profile}
        known = {"running": True, "name": self.name, "profile": self.spec.profile, "shell": self._session.shell}
        bounds = self._bounds.facts() if self._bounds is not None else {}
        return known | dict(self._network.facts()) | self._machine.describe() | bounds | inside(self._session.control)

    def __repr__(self) -> str:
        what = repr(self.spec.image) if self.spec.image else f"engine={self.spec.engine!r}"
        return f"Sandbox({what}, {'running' if self.started else 'not running'})"
