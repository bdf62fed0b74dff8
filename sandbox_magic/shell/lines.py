"""The lines that are sent to the shell, filled in from `bash.sh` and `posix.sh`."""

from __future__ import annotations

from sandbox_magic.shell import script, sections


def quote(data: bytes) -> bytes:
    """Return `data` for a place between single quotes."""
    return data.replace(b"'", rb"'\''")


def octal(data: bytes) -> bytes:
    """Return any bytes as an argument of ``printf %b``."""
    return b"".join(_OCTAL[byte] for byte in data)


_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _./:;=+,-")
_OCTAL = [bytes((byte,)) if byte in _PLAIN else b"\\0%03o" % byte for byte in range(256)]


def start_argv(name: str, shell: str | None = None) -> list[str]:
    """Return the command that runs the supervisor inside the sandbox.

    Args:
        name: Names the folder with the shell's last state; the same name finds it again after a loss.
        shell: The shell's name or path; bash where there is one, else sh.
    """
    helpers = [sections(kind)[title] for kind in ("bash.sh", "posix.sh") for title in ("report", "eval", "code")]
    return ["sh", "-c", script("supervisor.sh"), "supervisor", name, shell or "", *helpers]


class Lines:
    """The lines around a cell, with everything filled in but the cell and its token."""

    def __init__(self, shell: str, pid: int, prefix: bytes, token: bytes) -> None:
        parts = sections(_script(shell))

        def fill(title: str) -> bytes:
            text = parts[title].replace("@FD@", f"/proc/{pid}/fd").encode()
            return text.replace(b"@PREFIX@", prefix) + b"\n"

        self.init = fill("init").replace(b"@TOKEN@", token)
        self.save = fill("save")
        self.input = fill("input")
        self.begin = fill("begin")[:-1] if "begin" in parts else b""
        self.run = fill("run") + fill("again")
        self.recover, self.last = fill("recover" if "recover" in parts else "again"), fill("last")
        self.stdin = f"/proc/{pid}/fd/8".encode()


def _script(shell: str) -> str:
    return "bash.sh" if shell.rpartition("/")[2] == "bash" else "posix.sh"
