"""A model of a terminal, which tells what a text would do to a real one beside being read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyte
from tries import Breach

# What text and colours do to a terminal; web front ends know all but the erasing.
ALLOWED = {"draw", "linefeed", "carriage_return", "backspace", "tab", "select_graphic_rendition"}


class Telling:
    """Stands where a screen would, and notes what it is told to do."""

    def __init__(self) -> None:
        self.told: set[str] = set()

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_args, **_options: self.told.add(name)


def acts(text: str) -> set[str]:
    """Return what a terminal would do beside showing text in colours."""
    telling = Telling()
    stream = pyte.Stream()
    stream.attach(telling)
    stream.feed(text)
    return telling.told - ALLOWED


class Answering(pyte.Screen):
    """A screen that keeps what it would type as an answer."""

    answers: str = ""

    def write_process_input(self, data: str) -> None:
        self.answers += data


def changes(text: str) -> dict[str, Any]:
    """Return what of a terminal is not as it was, after text was shown and a new line was begun."""
    screen, fresh = Answering(80, 24), Answering(80, 24)
    for each, shown_text in ((screen, text), (fresh, "")):
        stream = pyte.Stream(each)
        stream.feed(shown_text + "\x1b[0m")
    kept = ("title", "icon_name", "mode", "margins", "charset", "g0_charset", "g1_charset", "savepoints", "tabstops",
            "answers")  # fmt: skip
    return {name: getattr(screen, name) for name in kept if getattr(screen, name) != getattr(fresh, name)} | (
        {"cursor": True} if screen.cursor.hidden != fresh.cursor.hidden else {}
    )


def harmless(text: str, *, terminal: bool = False) -> None:
    if found := acts(text) - ({"erase_in_line"} if terminal else set()):
        raise Breach(f"{found}: {text!r}")
    if found := changes(text):
        raise Breach(f"{found}: {text!r}")
