"""What a cell's view writes to in its tests: a front end with a clock that stands still."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stdout

from sandbox_magic.jupyter.view import CellView
from sandbox_magic.protocol import Output


class FrontEnd(io.StringIO):
    """What a kernel's `sys.stdout` is to us: each flush with something to send is one message."""

    def __init__(self, clock: Clock, log: list[tuple[str, str]] | None = None, name: str = "stdout") -> None:
        super().__init__()
        self._clock, self._log, self._name = clock, log, name
        self._sent = 0
        self.messages: list[tuple[float, str]] = []

    def flush(self) -> None:
        text = self.getvalue()[self._sent :]
        if text:
            self._sent += len(text)
            self.messages.append((self._clock.now, text))
            if self._log is not None:
                self._log.append((self._name, text))

    @property
    def texts(self) -> list[str]:
        return [text for _, text in self.messages]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


Begin = Callable[..., tuple[CellView, FrontEnd]]


def out(data: bytes) -> Output:
    return Output("stdout", data)


def err(data: bytes) -> Output:
    return Output("stderr", data)


def shown(outputs: list[Output], **options: object) -> str:
    """Return what a whole cell shows."""
    with redirect_stdout(io.StringIO()) as stream:
        view = CellView(**{"clock": lambda: 0.0} | options)  # type: ignore[arg-type] # no live count on a slow machine
        for output in outputs:
            view.show(output)
        view.finish()
    return stream.getvalue()
