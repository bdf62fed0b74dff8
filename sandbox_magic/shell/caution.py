"""What cells can have done to the shell itself, judged by their text, so that most cells have short lines around them.

It errs on the safe side. The text is looked at without quotes and with lines joined, as the shell sees it (``e"xec"``),
and a command whose name only the shell will know (``$x``, ``e*``, ``{exec,3}``) may be any.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# Words without which no cell can change the shell itself: open files, traps, options, builtins, aliases, functions.
# Some do so in some places only: those follow, and are what the shell's own lines would stumble over, too.
_SPOILERS = rb"exec|trap|set|shopt|alias|ALIAS|enable|eval|source|func|kill|builtin|readonly|TMOUT|compgen"
_SUSPECT = re.compile(rb"%b|\(|command|mapfile|readarray|declare|typeset|local|__|ulimit" % _SPOILERS)
_SPOILING = re.compile(
    rb"%b|\(\s*\)|command\s+(?!-[vV]\s)|(?:mapfile|readarray).{0,99}-\w*C|(?:declare|typeset|local).{0,99}\s-\w*r"
    rb"|\b__\b" % _SPOILERS
)
# A command that is `.`, or whose name is not plain text: behind what can stand before it, assignments, redirections.
_NAMELESS = re.compile(
    rb"(?:^|[\n;&|(`]|[{!)]\s|\b(?:then|do|else|elif|if|while|until|time|time\s+-p)\s)\s*"
    rb"(?:(?:\w+\+?=|\d*[<>][<>&|]*[ \t]*)[^\s;&|()<>]*[ \t]+)*"
    rb"(?:\.[ \t<>]|(?!\[\[?\s)[^\s;&|()<>=#]*[$`*?\[{])"
)
_QUOTES = b"\\'\""
_LONG = 1 << 16  # bytes; what it takes to read such a cell hides what its lines cost

# Words without quotes or expansions, of which none assigns or changes directory: exports and directory stay.
_HARMLESS = re.compile(rb"[\w\s./:,@%+|;&<>#~-]*\Z")
_CHANGERS = re.compile(
    rb"\b(cd|pushd|popd|export|declare|typeset|local|readonly|unset|read|readarray|mapfile|getopts|printf|let|for|select"
    rb"|coproc|wait)\b"
)
# What gives cells names to call that may then do anything; and what changes variables, options, functions and the like:
# without these most cells leave nothing that a new shell would miss. What else they have changed is saved in a pause.
_NAMERS = re.compile(rb"\(\s*\)|func|alias|source|eval|builtin|command")
_STATE = re.compile(rb"=|\+\+|umask")  # beside spoilers and changers
# Commands of which none starts a process, unless a word is a function or an alias; nothing that runs one inside.
_ALONE = re.compile(
    rb"""(?:(?:(?:true|false|:|cd|echo|export|pwd|umask|unset)(?![\w=])[\w ./:=,@%+$?*"'{}\[\]<>!#~^-]*"""
    rb"""|[A-Za-z_]\w*=[\w./:=,@%+$?*~^-]*)?(?:[\n;]|&&|\|\|)[ \t]*)*\Z"""
)
_SHORT = 2000  # bytes; for a longer cell it does not pay to look
_PERILS = re.compile(rb"kill|ulimit|TMOUT")
_FRAIL = re.compile(rb"ulimit\s(?:\s*-[HS]+\s)?\s*(?:-\w*f|\d)")


@dataclass(slots=True)
class Caution:
    """What the cells so far make necessary.

    Attributes:
        wary: Some cell may have changed the shell itself; this stays.
        perilous: Some cell may have left something that ends the shell later; this stays.
        frail: Some cell may have forbidden the shell to write files; this stays.
        confuses: The cell may leave the parser of bash in the middle of a condition.
        keeps: The cell may have changed exports or directory, or nobody has saved them yet.
        saved: Somebody has.
        changes: The cell may have changed variables, functions, aliases or options: what a checkpoint holds.
        names: Some cell may have named what later ones call, which may then do anything; this stays.
        alone: The cell has started no process.
    """

    wary: bool = False
    perilous: bool = False
    frail: bool = False
    confuses: bool = False
    keeps: bool = True
    saved: bool = False
    changes: bool = True
    names: bool = False
    alone: bool = True

    def look(self, text: bytes) -> None:
        """Take the next cell."""
        plain = len(text) < _LONG and bool(_HARMLESS.match(text))
        seen = text if plain else text.replace(b"\\\n", b"").translate(None, _QUOTES)
        suspect, changer = False, bool(_CHANGERS.search(text))
        if len(text) >= _LONG:
            self.wary = self.perilous = self.names = True
            self.frail = self.frail or b"ulimit" in text
        elif suspect := bool(_SUSPECT.search(seen)):
            self.wary = self.wary or bool(_SPOILING.search(seen))
            self.perilous = self.perilous or bool(_PERILS.search(seen))
            self.frail = self.frail or bool(_FRAIL.search(seen))
            self.names = self.names or bool(_NAMERS.search(seen))
        if not self.names and (not plain or b"." in text) and _NAMELESS.search(seen):
            self.wary = self.names = True
        self.confuses = self.wary or b"[[" in text
        self.changes = self.names or not self.saved or suspect or changer or bool(_STATE.search(seen))
        self.keeps = self.wary or not self.saved or not plain or changer
        self.alone = not self.wary and len(text) < _SHORT and bool(_ALONE.match(text))
