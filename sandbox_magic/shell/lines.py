"""The lines that are sent to the shell, filled in from `bash.sh`, `zsh.sh` or `posix.sh`."""

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
    kinds, titles = ("bash.sh", "zsh.sh", "posix.sh"), ("report", "eval", "code")
    helpers = [sections(kind)[title] for kind in kinds for title in titles]
    return ["sh", "-c", script("supervisor.sh"), "supervisor", name, shell or "", *helpers]


class Lines:
    """The lines around a cell, with everything filled in but the cell and its token."""

    def __init__(self, shell: str, pid: int, prefix: bytes, token: bytes) -> None:
        name = _script(shell)
        parts = sections(name)
        blank = " " if name == "zsh.sh" else ""  # zsh keeps a line that begins with one out of the user's history

        def fill(title: str) -> bytes:
            text = blank + parts[title].replace("@FD@", f"/proc/{pid}/fd")
            return text.encode().replace(b"@PREFIX@", prefix) + b"\n"

        self.init = fill("init").replace(b"@TOKEN@", token)
        self.save = fill("save")
        self.input = fill("input")
        self._begin = fill("begin")[:-1] if "begin" in parts else b""
        self._begun = fill("begun")[:-1] if "begun" in parts else b""
        self._guard = fill("guard")[:-1] if "guard" in parts else b""
        self._run = fill("run") + fill("again")
        self._forms: dict[tuple[bool, bool], bytes] = {}
        self.recover, self.last = fill("recover" if "recover" in parts else "again"), fill("last")
        self.stdin = f"/proc/{pid}/fd/8".encode()
        self.word = b"command" if name == "posix.sh" else b"builtin"  # see the files
        # Options that would show our lines or export $__: lifted between cells, set again inside.
        self.lifted = "axv" if name == "zsh.sh" else "axvH"

    def cell(self, token: bytes, code: int, text: bytes, stdin: bytes, *, fenced: bool, guarded: bool) -> bytes:
        """Return the lines of one cell.

        Args:
            token: Of its fences.
            code: What ``$?`` shall be.
            text: The cell.
            stdin: What it reads, a path.
            fenced: With begin fences.
            guarded: With builtins, and without aliases, of the words that the lines are made of.
        """
        form = self._forms.get((fenced, guarded)) or self._form(fenced=fenced, guarded=guarded)
        return form % {b"TOKEN": token, b"CODE": b"%d" % code, b"TEXT": quote(text), b"STDIN": stdin}

    def _form(self, *, fenced: bool, guarded: bool) -> bytes:
        form = self._run.replace(b"@BEGIN@", self._begin if fenced else b"")
        form = form.replace(b"@BEGUN@", self._begun if fenced else b"")
        form = form.replace(b"@GUARD@", self._guard if guarded else b"").replace(b"%", b"%%")
        for name in (b"TOKEN", b"CODE", b"TEXT", b"STDIN"):
            form = form.replace(b"@%b@" % name, b"%%(%b)b" % name)
        self._forms[fenced, guarded] = form
        return form


def _script(shell: str) -> str:
    name = shell.rpartition("/")[2]
    return f"{name}.sh" if name in {"bash", "zsh"} else "posix.sh"
