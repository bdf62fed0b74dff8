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
    helpers = [_helper(kind, title) for kind in kinds for title in titles]
    return ["sh", "-c", script("supervisor.sh"), "supervisor", name, shell or "", *helpers]


def _helper(kind: str, title: str) -> str:
    """Return the text of a helper file. The head of `report` tells the supervisor where its shell prints."""
    return ("# @FD@/1 @FD@/4\n" if title == "report" else "") + sections(kind)[title]


class Lines:
    """The lines around a cell, with everything filled in but the cell and its token.

    Attributes:
        places: Where the shell prints: its stdout and its stderr.
    """

    def __init__(self, shell: str, pid: int, prefix: bytes, token: bytes, holder: int = 0) -> None:
        name = _script(shell)
        parts = sections(name)
        blank = " " if name == "zsh.sh" else ""  # zsh keeps a line that begins with one out of the user's history
        self.places = (f"/proc/{holder or pid}/fd/1", f"/proc/{holder}/fd/2" if holder else f"/proc/{pid}/fd/4")

        def filled(text: str) -> bytes:
            text = text.replace("@FD@/1", self.places[0]).replace("@FD@/4", self.places[1])
            return text.replace("@FD@", f"/proc/{pid}/fd").encode().replace(b"@PREFIX@", prefix)

        def fill(title: str) -> bytes:
            return filled(blank + parts[title]) + b"\n"

        self.init = fill("init").replace(b"@TOKEN@", token)
        self.save = fill("save")
        self.input = fill("input")
        helpers = {title.upper(): quote(filled(_helper(name, title))) for title in ("report", "eval")}
        self._turn = fill("turn").replace(b"@TOKEN@", token)
        for title, text in helpers.items():
            self._turn = self._turn.replace(b"@%b@" % title.encode(), text)
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

    def turn(self, was: Lines) -> bytes:
        """Return the line that makes a shell that stands at `was` print here."""
        out, err = (place.encode() for place in was.places)
        return self._turn.replace(b"@WAS_OUT@", out).replace(b"@WAS_ERR@", err)

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
