"""Things of this machine that no sandbox may see, each with a word in it that is nowhere else."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sandbox_magic.engines import traces

# Where the secrets of a user lie, below the home folder.
_HOME = (
    ".ssh/id_ed25519",
    ".aws/credentials",
    ".config/gcloud/credentials.db",
    ".azure/accessTokens.json",
    ".git-credentials",
    ".netrc",
    ".docker/config.json",
    ".kube/config",
    ".local/share/jupyter/runtime/kernel-1.json",
    ".jupyter/jupyter_server_config.json",
)
_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "JPY_API_TOKEN", "JUPYTER_TOKEN", "PIP_INDEX_URL")


@dataclass(frozen=True, slots=True)
class Canary:
    """What was planted.

    Attributes:
        word: In the contents of every file and variable, and in every name.
        files: The files.
        agent: A Unix socket in a folder of the home, with somebody who answers.
        abstract: The name of an abstract Unix socket, likewise.
        port: A TCP port, on all addresses of this machine.
        loopback: Another one, on the loopback address only.
    """

    word: str
    files: tuple[Path, ...]
    agent: Path
    abstract: str
    port: int
    loopback: int


@contextmanager
def planted() -> Iterator[Canary]:
    """Plant them all; they are removed at the end."""
    word = f"canary{secrets.token_hex(8)}"
    with ExitStack() as stack:
        homes = [Path.home(), Path(tempfile.gettempdir()), Path("/var/tmp"), Path("/dev/shm"), traces.home()]
        folders = [home / f".{word}" for home in homes if home.is_dir() and os.access(home, os.W_OK)]
        files = []
        for folder in folders:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            for name in _HOME:
                file = folder / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(f"secret = {word}\n", encoding="utf-8")
                files.append(file)
            for made in (folder, *folder.rglob("*")):
                made.chmod(0o777 if made.is_dir() else 0o666)  # not the mode shall keep them safe
        for name in _VARIABLES:
            _set(stack, f"SANDBOX_CANARY_{name}", word)
        agent = folders[1] / "agent.sock"
        listeners = [_listen(stack, socket.AF_UNIX, place) for place in (str(agent), f"\0{word}")]
        agent.chmod(0o777)
        listeners += [_listen(stack, socket.AF_INET, (address, 0)) for address in ("0.0.0.0", "127.0.0.1")]
        port, loopback = (listener.getsockname()[1] for listener in listeners[2:])
        yield Canary(word, tuple(files), agent, word, port, loopback)


def _set(stack: ExitStack, name: str, value: str) -> None:
    os.environ[name] = value
    stack.callback(os.environ.pop, name, None)


def _listen(stack: ExitStack, family: socket.AddressFamily, place: object) -> socket.socket:
    listener = stack.enter_context(socket.socket(family))
    listener.bind(place)  # type: ignore[arg-type]
    listener.listen(16)  # whoever connects gets as far as this queue, which is enough to be seen
    return listener
