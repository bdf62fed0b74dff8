"""A door between a client and its engine: it can hold a request, shut every connection, or let nothing through."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
from pathlib import Path
from typing import Self


class Gate:
    """Passes what comes at a socket of its own on to an engine's socket, until it is told otherwise.

    Args:
        engine: The path of the engine's socket.

    Attributes:
        url: Where clients connect.
        held: Set when a request was held.
    """

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._folder = tempfile.TemporaryDirectory(prefix="sbx-")
        self._path = Path(self._folder.name, "docker.sock")
        self.url = f"unix://{self._path}"
        self.held = threading.Event()
        self.cut = threading.Event()
        self._open = threading.Event()
        self._pattern = b""
        self._after = False
        self._answer_from: socket.socket | None = None
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._listener.listen(64)
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._open.set()
        self.shut()
        self._folder.cleanup()

    def hold(self, pattern: str, *, after: bool = False) -> None:
        """Hold the next request with these words in it, or with `after` let it through and hold its answer."""
        self._open.clear()
        self.held.clear()
        self._pattern, self._after = pattern.encode(), after

    def release(self) -> None:
        self._open.set()

    def shut(self) -> None:
        """Close every connection that there is."""
        for end in self._ends:
            with contextlib.suppress(OSError):  # a close alone would not wake the thread that reads
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ends = []

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            there = socket.socket(socket.AF_UNIX)
            try:
                there.connect(self._engine)
            except OSError:
                here.close()
                there.close()
                continue
            self._ends += [here, there]
            for source, target, asks in ((here, there, True), (there, here, False)):
                threading.Thread(target=self._carry, args=(source, target, asks), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, asks: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                if asks and self._pattern and self._pattern in data:
                    self._pattern = b""
                    if self._after:
                        self._answer_from = target
                    else:
                        self._stop()
                elif source is self._answer_from:
                    self._answer_from = None
                    self._stop()
                if self.cut.is_set():
                    return
                target.sendall(data)
        except OSError:
            pass  # the other side has ended
        for end in (source, target):  # the end of a process ends both directions at once
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _stop(self) -> None:
        self.held.set()
        self._open.wait()
