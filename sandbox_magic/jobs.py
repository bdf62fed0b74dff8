"""`Job`: code that runs in a shell of its own beside a sandbox's session, while cells go on."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Mapping

from sandbox_magic.asking import Input
from sandbox_magic.capture import Capture
from sandbox_magic.errors import CommandTimeout, InvalidOptions, SandboxError, unknown_name
from sandbox_magic.left_running import Process, left_running
from sandbox_magic.link import ShellLink
from sandbox_magic.protocol import Output
from sandbox_magic.result import Result
from sandbox_magic.session import Session

KEPT = 100  # ended jobs whose output can still be looked at


class SharedCapture(Capture):
    """A `Capture` that one thread fills while others read it."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.RLock()

    def add(self, output: Output) -> None:
        """Keep a piece of output, or as much of it as the cap allows."""
        with self._lock:
            super().add(output)

    def output(self) -> bytes:
        """Return both streams in order of arrival."""
        with self._lock:
            return super().output()

    def _only(self, sign: int) -> bytes:
        with self._lock:
            return super()._only(sign)


class Job:
    """Code that runs in the background of a sandbox. Every method may be called from any thread.

    Attributes:
        name: What the user calls it.
        code: The code as it was given.
        result: What it did; `None` while it runs, and for good if it could not be run to its end.
    """

    def __init__(self, name: str, code: str, session: Session) -> None:
        """Make a job that `start` then runs; see `Sandbox.start_job`."""
        self.name = name
        self.code = code
        self.result: Result | None = None
        self._session = session
        self._capture = SharedCapture()
        self._error: SandboxError | None = None
        self._begun = threading.Event()
        self._ended = threading.Event()

    @property
    def link(self) -> ShellLink:
        """The stream to its shell; for others to look at."""
        return self._session.link

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return not self._ended.is_set()

    @property
    def exit_code(self) -> int | None:
        """Its exit code; `None` while it runs, and if unknown."""
        return self.result.exit_code if self.result is not None else None

    @property
    def output(self) -> str:
        """What it has printed so far, both streams in order of arrival."""
        return self._capture.output().decode(errors="replace")

    @property
    def state(self) -> str:
        """How it stands, in words: running, or how it ended."""
        if self.running:
            return "running"
        result = self.result
        if result is None:
            return "given up"
        if result.timed_out:
            return f"timed out ({result.stopped_by})"
        return f"stopped ({result.stopped_by})" if result.stopped_by else f"exit status {result.exit_code}"

    def poll(self) -> int | None:
        """Return the exit code, `None` while it runs."""
        return self.exit_code

    def wait(self, timeout: float | None = None) -> Result:
        """Wait for its end and return what it did; a failure does not raise (`Result.check` does).

        Raises:
            TimeoutError: It still runs after `timeout` seconds, and goes on.
            SandboxError: It could not be run to its end, such as when the sandbox was closed.
        """
        if not self._ended.wait(timeout):
            raise TimeoutError(f"job {self.name} still runs after {timeout:g} s")
        if self.result is None:
            assert self._error is not None
            raise self._error
        return self.result

    def stop(self) -> Result:
        """Stop it, by SIGINT first, then harder, and return what it did; again or after its end is harmless."""
        self._begun.wait()  # before that there is nothing to interrupt
        self._session.interrupt()
        return self.wait()

    def start(
        self,
        *,
        timeout: float | None,
        given: Input,
        on_output: Callable[[Output], object] | None,
        on_end: Callable[[Job], object] | None,
    ) -> None:
        """Run it in a thread of its own."""

        def work() -> None:
            try:
                self.result = self._session.run(
                    self.code,
                    timeout=timeout,
                    stdin=given,
                    on_output=on_output,
                    capture=self._capture,
                    tick=self._begun.set,
                )
            except CommandTimeout as error:
                self.result = error.result
            except SandboxError as error:
                self._error = error
            except Exception as error:  # noqa: BLE001 # of `on_output`; whoever waits gets it
                self.result, self._error = self._session.last, SandboxError(f"job {self.name}: {error}")
            finally:
                if not self._session.closed:
                    self._session.forget()
                self._session.close()
                self._ended.set()
                self._begun.set()
                if on_end is not None:
                    on_end(self)

        threading.Thread(target=work, name="sandbox-job", daemon=True).start()

    def close(self) -> None:
        """Give it up with its sandbox, which ends what it runs."""
        self._session.close()

    def __repr__(self) -> str:
        return f"Job({self.name!r}, {self.state})"


class Jobs:
    """The jobs of one sandbox, by name, and what its cells have left running.

    Args:
        of: Returns the session of the cells, if there is one.
    """

    def __init__(self, of: Callable[[], Session | None] = lambda: None) -> None:
        self._of = of
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)

    def all(self) -> list[Job]:
        """Return them in the order of their start."""
        with self._lock:
            return list(self._jobs.values())

    def processes(self) -> list[Process]:
        """Return what cells have left running (``cmd &``, daemons), and what the one that runs has started.

        Raises:
            SessionError: The sandbox does not answer.
        """
        session = self._of()
        if session is None or session.closed or not session.link.connected:
            return []
        return left_running(session.link, [job.link for job in self.all() if job.running])

    def find(self, name: str) -> Job:
        """Return the job of this name.

        Raises:
            InvalidOptions: There is none; the sentence names those that are there.
        """
        with self._lock:
            names = list(self._jobs)
            if name in self._jobs:
                return self._jobs[name]
        raise unknown_name("job", name, names, none="there is none")

    def check(self, name: str) -> None:
        """Refuse a name that a running job has.

        Raises:
            InvalidOptions: A job of this name runs.
        """
        with self._lock:
            known = self._jobs.get(name)
        if known is not None and known.running:
            raise InvalidOptions(f"job {name!r} still runs: stop it, or choose another name")

    def add(
        self, name: str, code: str, session: Session, *, env: Mapping[str, str], cwd: str | None, of: Session
    ) -> Job:
        """Make a job, whose shell begins with the state `of` another one; `Job.start` runs it.

        Args:
            name: Its name; ``job1`` and so on if empty.
            code: What it runs.
            session: Its own shell.
            env: Exported before.
            cwd: Where it runs.
            of: The session of the sandbox.

        Raises:
            InvalidOptions: A job of this name runs, or `env` or `cwd` cannot be set.
        """
        self.check(name)
        try:
            of.bequeath(session)
            session.prepare(env, cwd)
        except BaseException:
            session.close()
            raise
        with self._lock:
            name = name or next(free for n in self._numbers if (free := f"job{n}") not in self._jobs)
            job = self._jobs[name] = Job(name, code, session)
            ended = [known for known in self._jobs.values() if not known.running]
            for old in ended[: max(0, len(ended) - KEPT)]:
                del self._jobs[old.name]
        return job

    def close(self) -> None:
        """Give all up with the sandbox; they stay to be looked at."""
        for job in self.all():
            if job.running:
                with contextlib.suppress(SandboxError):
                    job.close()
