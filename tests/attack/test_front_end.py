"""A real kernel: what sandbox text becomes there, and whether a sandbox reaches the kernel that made it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from escape_corpus import ESCAPES
from kernels import Cell, Kernel, sandbox_kernel
from terminal_model import harmless
from tries import Breach, perl

TOKEN = f"token{secrets.token_hex(8)}"
CORPUS = "\n".join(ESCAPES.values()).encode("utf-8", "surrogatepass") + b"\n\xff\xfe\x80\x9b2J\n"


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "corpus").write_bytes(CORPUS)
    with sandbox_kernel(folder, JUPYTER_TOKEN=TOKEN, JPY_API_TOKEN=TOKEN) as kernel:
        kernel.ok("%sandboxctl put corpus /work/")
        yield kernel


def only(cell: Cell, *kinds: str) -> None:
    """Check every message of a cell: its kind, and that nothing in it acts on a terminal or a page."""
    if found := cell.kinds() - {*kinds}:
        raise Breach(found)
    for content in cell.contents("stream"):
        harmless(content["text"])
    for content in cell.contents("error"):
        harmless("\n".join([content["evalue"], *content["traceback"]]))
    for kind in ("display_data", "update_display_data", "execute_result"):
        for content in cell.contents(kind):
            harmless(content["data"].get("text/plain", ""))
            page = content["data"].get("text/html", "")
            if set(content["data"]) - {"text/plain", "text/html"} or "<script" in page or "<img" in page:
                raise Breach(content["data"])


@pytest.mark.parametrize("line", ["%%sandbox", "%%sandbox -t", "%%sandbox --tee -o o --err e"])
@pytest.mark.parametrize("stream", ["", " >&2", "; false"])
@pytest.mark.attack("notebook", "print the whole corpus: on stdout, on stderr, from a terminal, from a cell that fails")
def test_output_is_streams_and_nothing_else(kernel: Kernel, line: str, stream: str) -> None:
    cell = kernel.run(f"{line}\ncat /work/corpus{stream}")
    only(cell, "stream", "error")
    assert "alert(1)" in cell.stdout + cell.stderr


@pytest.mark.attack("notebook", "print the whole corpus from a job, whose end is shown in a display")
def test_the_display_of_a_job(kernel: Kernel) -> None:
    cell = kernel.ok("%%sandbox --bg --proc job\ncat /work/corpus; sleep 1")
    only(kernel.ok("ended = job.wait(20)"), "stream")
    kernel.ok("import time; time.sleep(0.5)")
    only(cell, "display_data", "update_display_data", "stream")
    only(kernel.ok("%sandboxctl logs job"), "stream")
    only(kernel.ok("%sandboxctl jobs"), "stream")


@pytest.mark.attack("notebook", "print the whole corpus after the cell's end")
def test_late_output(kernel: Kernel) -> None:
    kernel.ok("%%sandbox\n(sleep 0.3; cat /work/corpus) &")
    kernel.ok("import time; time.sleep(1)")
    only(kernel.ok("%%sandbox\ntrue"), "stream")


@pytest.mark.attack("notebook", "show a result that holds the whole corpus")
def test_the_display_of_a_result(kernel: Kernel) -> None:
    kernel.ok("%%sandbox -q\ntail -c 3000 /work/corpus")
    only(kernel.ok("_sandbox"), "execute_result")


@pytest.mark.attack("notebook", "names of files, hosts, processes and messages of tools, made of the corpus")
def test_names_and_messages(kernel: Kernel) -> None:
    kernel.ok("%%sandbox\nmkdir -p /work/d; cp /bin/sleep \"$(printf '/tmp/\\033]0;evil\\007')\"\n"
              "(exec /tmp/*evil* 30) & >\"$(printf '/work/d/\\033]0;evil\\007\\342\\200\\256')\"")  # fmt: skip
    only(kernel.run("%sandboxctl get /work/d"), "stream", "error")
    only(kernel.ok("%sandboxctl status"), "stream")
    only(kernel.run("%sandboxctl put corpus '/work/\x1b]0;evil\x07\u202e/'"), "stream", "error")
    for name in ("\x1b]0;evil\x07\u202e", "\x1b]0;evil\x07/.."):
        only(kernel.run(f"%sandboxctl get '/work/{name}'"), "stream", "error")
    kernel.ok("%%sandbox\nprintf '#!/bin/sh\\ncat /work/corpus >&2; exit 1\\n' >/usr/local/bin/tar\n"
              "chmod +x /usr/local/bin/tar; hash -r")  # fmt: skip
    for line in ("get /work/d", "put corpus /work/again"):
        cell = kernel.run(f"%sandboxctl {line}")
        assert cell.error_name == "TransferError"
        only(cell, "stream", "error")
    kernel.ok("%%sandbox\nrm /usr/local/bin/tar")


@pytest.mark.attack(
    "notebook", "reach the kernel that made the sandbox: its ports, its connection file, its key, a token"
)
def test_the_kernel_is_out_of_reach(kernel: Kernel) -> None:
    facts = json.loads(Path(kernel.manager.connection_file).read_text())
    for port in [facts[name] for name in facts if name.endswith("_port")]:
        place = f'pack_sockaddr_in({port}, inet_aton("127.0.0.1"))'
        said = kernel.ok(f"%%sandbox\n{perl(f'socket(S, AF_INET, SOCK_STREAM, 0); print connect(S, {place}) ? 1 : 0')}")
        if said.stdout != "0":
            raise Breach(port)
    halves = [(word[: len(word) // 2], word[len(word) // 2 :]) for word in (facts["key"], TOKEN)]
    sought = "; ".join(f"printf '%s%s\\n' {first} {second}" for first, second in halves)
    look = (
        f"{{ {sought}; }} >/tmp/sought; [ $(wc -l </tmp/sought) = 2 ] || echo broken\n"
        "grep -rslF -D skip --exclude-dir=proc --exclude-dir=sys --exclude=sought -f /tmp/sought / 2>/dev/null\n"
        "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\000' '\\n' | grep -F -f /tmp/sought\n"
        f"ls {kernel.manager.connection_file} 2>/dev/null; rm /tmp/sought"
    )
    if found := kernel.run(f"%%sandbox --no-raise-error\n{look}").stdout:
        raise Breach(found)
