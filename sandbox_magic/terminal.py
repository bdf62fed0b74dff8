"""A cell on a pseudo-terminal: `script` of util-linux makes it, inside, so every engine has it. No I/O here.

The cell runs in a child of the persistent shell. At its end the child writes its exports and its directory to a file,
which the persistent shell then takes over.
"""

from __future__ import annotations

import secrets
import shlex

from sandbox_magic.errors import InvalidOptions

ROWS, COLUMNS = 24, 100
CODE_MAX = 60_000  # bytes; it travels in an argument, of which Linux takes 128 kB, and quotes grow
TERM = "xterm-256color"  # where the session says `dumb`
PROBE = "script --help"

MISSING = (
    "the cell was not run: a terminal needs the program `script` of util-linux (2.37 or later), which this sandbox "
    "does not have; it is in the package bsdutils of Debian and Ubuntu, else in util-linux, util-linux-misc or -script"
)


_FILE = f"/tmp/.sandbox-tty-{secrets.token_hex(8)}"  # noqa: S108 # inside, where /tmp is in every profile


def check(help_text: str) -> None:
    """Raise `InvalidOptions` unless this is what `PROBE` prints where there is a fit program; busybox has another."""
    if "--echo" not in help_text:
        raise InvalidOptions(MISSING)


def on_terminal(code: str, shell: str, typed: str, *, is_stdin: bool) -> str:
    """Return code for the persistent shell that runs `code` on a terminal of its own.

    Its stdin is that of any cell, not the terminal: so it has an end for every reader, and no echo. Newlines come as
    they were written. Where the terminal `is_stdin`, it shows what is typed.

    Args:
        code: The cell.
        shell: The name or path of the session's shell.
        typed: A path, of what is typed at the terminal.
        is_stdin: Whether the terminal is the cell's stdin.

    Raises:
        InvalidOptions: The cell is too long.
    """
    if len(code.encode(errors="surrogateescape")) > CODE_MAX:
        raise InvalidOptions(f"--tty takes cells up to {CODE_MAX} bytes: put the rest into a file")
    name = shell.rpartition("/")[2]
    word = r"\builtin" if name in {"bash", "zsh"} else r"\command"
    keep = f"case $TERM in {TERM}) TERM=dumb ;; esac; {word} umask 077; {word} export -p >{_FILE}"
    # One line with the cell's first, so that its line numbers are right.
    inner = (
        f"\\command stty rows {ROWS} cols {COLUMNS} -onlcr </dev/tty; "
        f"case $TERM in dumb) TERM={TERM} ;; esac; {word} trap {shlex.quote(keep)} EXIT; {code}"
    )
    plain = " -f" if name == "zsh" else ""  # the persistent one has read no file of settings either
    command = f"exec {shlex.quote(shell)}{plain} -c {shlex.quote(inner)}" + ("" if is_stdin else " <&3 3<&-")
    script = rf"\command script -qe -E {'always' if is_stdin else 'never'} -c {shlex.quote(command)} /dev/null"
    # $__ must keep its shape, see shell/bash.sh; it is the one variable that we have.
    return (
        f"\\command rm -f {_FILE}; {script}{'' if is_stdin else ' 3<&0'} <{typed}\n"
        f'__="$? tty"; if [ -f {_FILE} ]; then {{ {word} . {_FILE}; {word} cd -- "$PWD"; '
        f'\\command rm -f {_FILE}; }} 2>/dev/null; fi; (exit "${{__%% *}}")\n'
    )
