"""The lines that are sent to the shell, filled in from `bash.sh`, `zsh.sh` or `posix.sh`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sandbox_magic.shell import script, sections
from sandbox_magic.shell.caution import Caution


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


def _turn(name: str, filled: Callable[[str], bytes], line: bytes) -> bytes:
    """Return the line that makes a shell print elsewhere, with the texts of its helper files for there."""
    for title in ("report", "eval"):
        line = line.replace(b"@%b@" % title.upper().encode(), quote(filled(_helper(name, title))))
    return line


# Parts of the lines of a cell, and when they are wanted.
_FENCED, _WARY, _KEEP, _RESET = ("begin", "begun"), ("rare", "wary", "out", "null"), ("keep", "mark"), ("reset",)


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
            text = text.replace("@FD@", f"/proc/{pid}/fd").replace("@PID@", str(pid))
            return text.encode().replace(b"@PREFIX@", prefix)

        def fill(title: str) -> bytes:
            return filled(blank + parts[title]) + b"\n"

        self.init = fill("init").replace(b"@TOKEN@", token)
        self.save = fill("save")
        self._turn = partial(_turn, name, filled, fill("turn").replace(b"@TOKEN@", token))
        self._parts = {name: fill(name)[:-1] if name in parts else b"" for name in _FENCED + _WARY + _KEEP + _RESET}
        self._run = fill("run") + fill("again")
        self._forms: dict[tuple[bool, ...], bytes] = {}
        self.recover, self.last = fill("recover" if "recover" in parts else "again"), fill("last")
        self.word = b"command" if name == "posix.sh" else b"builtin"  # see the files
        # Options that would show our lines or export $__: lifted between cells, set again inside.
        self.lifted = "axv" if name == "zsh.sh" else "axvH"
        self.frail_save = self._apart(self.save.strip()) + b"\n"

    def _apart(self, text: bytes) -> bytes:
        """Return lines that write files in a child, and outlive a limit for the size of these."""
        return b"{ (\\%b trap '' XFSZ;%b);} 2>/dev/null;" % (self.word, text.rstrip(b";"))

    def turn(self, was: Lines) -> bytes:
        """Return the line that makes a shell that stands at `was` print here."""
        out, err = (place.encode() for place in was.places)
        return self._turn().replace(b"@WAS_OUT@", out).replace(b"@WAS_ERR@", err)

    def cell(
        self, token: bytes, code: int, text: bytes, stdin: bytes, *, fenced: bool, caution: Caution, ours: bool
    ) -> bytes:
        """Return the lines of one cell.

        Args:
            token: Of its fences.
            code: What ``$?`` shall be.
            text: The cell.
            stdin: What it reads, a path.
            fenced: With begin fences.
            caution: What must be made up for.
            ours: Of ours, between two of the user's: traps that are put away stay so (in zsh they are back).
        """
        wary = caution.wary
        whole = not ours and (wary or code != 0)
        kind = fenced, wary, whole, caution.keeps, caution.frail, caution.confuses
        form = self._forms.get(kind) or self._form(*kind)
        return form % {b"TOKEN": token, b"CODE": b"%d" % code, b"TEXT": quote(text), b"STDIN": stdin}

    def _form(self, *kind: bool) -> bytes:
        fenced, wary, whole, keeps, frail, confuses = kind
        fills = dict.fromkeys(self._parts, b"") | {"file": b"5" if whole else b"6"}
        fills |= {name: self._parts[name] for name in fenced * _FENCED + wary * _WARY + confuses * _RESET}
        fills |= {} if whole else {"wary": b""}
        keep = self._parts["keep" if keeps else "mark"]
        fills["keep"] = self._apart(keep) if frail else keep
        form = self._run
        for name, text in fills.items():
            form = form.replace(b"@%b@" % name.upper().encode(), text)
        form = form.replace(b"%", b"%%")
        for name in ("TOKEN", "CODE", "TEXT", "STDIN"):
            form = form.replace(b"@%b@" % name.encode(), b"%%(%b)b" % name.encode())
        self._forms[kind] = form
        return form


def _script(shell: str) -> str:
    name = shell.rpartition("/")[2]
    return f"{name}.sh" if name in {"bash", "zsh"} else "posix.sh"
