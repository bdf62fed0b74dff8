"""One command in a sandbox that runs already, its output, and its interruption."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from functools import partial

from benchmarks.by_hand import RawShell, api
from benchmarks.measure import Row, Rows, at_least, at_most, compared, limited, medians, seconds
from sandbox_magic import Output, Sandbox

_MEGABYTES = 200
_PRINT = b"for i in 1 2 3 4 5 6 7 8 9 10; do cat /tmp/text; done"


def commands() -> Rows:
    yield from _commands("debian:stable-slim", "bash", with_docker_exec=True)
    yield from _commands("busybox", "sh", with_docker_exec=False)


def _commands(image: str, shell: str, *, with_docker_exec: bool) -> Rows:
    with Sandbox(image) as box:
        container = str(box.status()["container"])
        raw = RawShell(container, shell)
        run = partial(box.run, "true")
        run()
        found = medians(1000, {"run": lambda: seconds(run), "raw": lambda: seconds(raw.line)})
        yield compared(f"one line by hand on a raw exec stream ({shell}, {image})", found["raw"])
        yield compared(f'run("true") in {image}', found["run"])
        yield at_most("  against one line by hand (goal: 1.5x)", found["run"] / found["raw"], 3)
        raw.close()
        if with_docker_exec:
            yield from _against_docker_exec(box, container)


def _against_docker_exec(box: Sandbox, container: str) -> Rows:
    name, exec_true = "docker exec", lambda: _docker_exec(container)
    if not shutil.which("docker"):
        name, exec_true = "an exec through the SDK:", lambda: _exec_through_sdk(container)
    found = medians(15, {"exec": lambda: seconds(exec_true), "run": lambda: seconds(lambda: box.run("true"))})
    quick = medians(200, {"run": lambda: seconds(lambda: box.run("true"))})["run"]
    yield compared(f"{name} CONTAINER true", found["exec"])
    yield at_least("  that many times slower than run, one after another", found["exec"] / quick, 80)
    yield Row("  than run taking turns with it (rested, caches cold)", f"{found['exec'] / found['run']:.2f}x")


def _docker_exec(container: str) -> None:
    subprocess.run(["docker", "exec", container, "true"], check=True)


def _exec_through_sdk(container: str) -> None:
    api().exec_start(api().exec_create(container, ["true"])["Id"])


def output() -> Rows:
    with Sandbox() as box:
        line = "a line of text that is about as long as the lines of a log usually are, number 123456"
        box.run(f"yes '{line}' | head -c {_MEGABYTES * 100_000} >/tmp/text", check=True)
        container = str(box.status()["container"])

        def by_hand() -> float:
            raw = RawShell(container, "bash")
            took = seconds(lambda: _expect(raw.count(_PRINT)))
            raw.close()
            return took

        def with_result() -> float:
            return seconds(lambda: _expect(box.run(_PRINT.decode(), check=True).captured.size))  # type: ignore[attr-defined] # Capture

        found = medians(3, {"raw": by_hand, "run": with_result})
    rate = {name: _MEGABYTES / took for name, took in found.items()}
    yield Row(f"{_MEGABYTES} MB read from a raw exec stream by hand", f"{rate['raw']:.0f} MB/s")
    yield Row(f"{_MEGABYTES} MB into Result (64 MB kept, the rest counted)", f"{rate['run']:.0f} MB/s")
    yield at_least("  rate against the raw stream", rate["run"] / rate["raw"], 0.8)


def _expect(size: int) -> None:
    if size != _MEGABYTES * 1_000_000:
        raise RuntimeError(f"{size} bytes came instead of {_MEGABYTES} MB")


def interrupt() -> Rows:
    with Sandbox() as box:
        box.run("kept=yes")
        slowest = max(_interrupt_once(box) for _ in range(10))
        if box.run("echo $kept").stdout != "yes\n":
            raise RuntimeError("the interrupts have cost the shell its variables")
    yield limited("interrupt of `sleep 100` to prompt, slowest of 10", slowest, 0.2)


def _interrupt_once(box: Sandbox) -> float:
    asked = 0.0

    def stop() -> None:
        nonlocal asked
        time.sleep(0.1)  # it is in its sleep by then
        asked = time.perf_counter()
        box.interrupt()

    stopper = threading.Thread(target=stop)

    def begun(output: Output) -> None:
        if output.data == b"begun\n":  # bash prints a newline when it is interrupted
            stopper.start()

    result = box.run("echo begun; sleep 100", on_output=begun)
    took = time.perf_counter() - asked
    stopper.join()
    if not result.interrupted or not asked:  # one that took a harder step than SIGINT counts, with its time
        raise RuntimeError(f"not interrupted: {result!r}")
    return took
