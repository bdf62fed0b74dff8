"""What cells can have done to the shell, judged by their text, so that most cells have short lines around them.

A word put together from pieces (``e"xec"``) is not seen: then the shell's own noise may show, or a cell's end is
heard of late and its exit code is unknown (see `ShellProtocol.recover`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Words without which no cell can change the shell itself: open files, traps, options, builtins, aliases, functions.
_SPOILERS = re.compile(rb"exec|trap|set|shopt|alias|ALIAS|enable|eval|source|\. |\(\)|func|kill")
# Words without quotes or expansions, of which none assigns or changes directory: exports and directory stay.
_HARMLESS = re.compile(rb"[\w\s./:,@%+|;&<>#~-]*\Z")
_CHANGERS = re.compile(
    rb"\b(cd|pushd|popd|export|declare|typeset|local|readonly|unset|read|readarray|mapfile|getopts|printf|let|for|select"
    rb"|coproc|wait)\b"
)
# What gives cells names to call that may then do anything; and what changes variables, options, functions and the like:
# without these most cells leave nothing that a new shell would miss. What else they have changed is saved in a pause.
_NAMERS = re.compile(rb"\(\)|func|alias|source|eval|\. ")
_STATE = re.compile(rb"=|\+\+|umask|" + _SPOILERS.pattern + rb"|" + _CHANGERS.pattern)
# Commands of which none starts a process, unless a word is a function or an alias; nothing that runs one inside.
_ALONE = re.compile(
    rb"""(?:(?:(?:true|false|:|cd|echo|export|pwd|umask|unset)(?![\w=])[\w ./:=,@%+$?*"'{}\[\]<>!#~^-]*"""
    rb"""|[A-Za-z_]\w*=[\w./:=,@%+$?*~^-]*)?(?:[\n;]|&&|\|\|)[ \t]*)*\Z"""
)
_SHORT = 2000  # bytes; for a longer cell it does not pay to look


@dataclass(slots=True)
class Caution:
    """What the cells so far make necessary.

    Attributes:
        wary: Some cell may have changed the shell itself; this stays.
        perilous: Some cell may have left something that ends the shell later; this stays.
        keeps: The cell may have changed exports or directory, or nobody has saved them yet.
        saved: Somebody has.
        changes: The cell may have changed variables, functions, aliases or options: what a checkpoint holds.
        alone: The cell has started no process.
    """

    wary: bool = False
    perilous: bool = False
    keeps: bool = True
    saved: bool = False
    changes: bool = True
    names: bool = False
    alone: bool = True

    def look(self, text: bytes) -> None:
        """Take the next cell."""
        self.perilous = self.perilous or b"kill" in text
        self.wary = self.wary or bool(_SPOILERS.search(text))
        self.names = self.names or bool(_NAMERS.search(text))
        self.changes = self.names or not self.saved or bool(_STATE.search(text))
        self.keeps = self.wary or not self.saved or not _HARMLESS.match(text) or bool(_CHANGERS.search(text))
        self.alone = not self.wary and len(text) < _SHORT and bool(_ALONE.match(text))
