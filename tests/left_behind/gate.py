"""A door between a client and its engine: it can hold a request, shut every connection, or let nothing through."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
from typing import Self


class Gate:
    """Passes what comes at a socket of its own on to an engine's socket, until it is told otherwise.

    Args:
        engine: The path of the engine's socket, or its port on 127.0.0.1.

    Attributes:
        url: Where clients connect.
        held: Set when a request was held.
        cut: To be set: then both ends hear nothing any more, not even an end.
    """

    def __init__(self, engine: str | int) -> None:
        self._engine = engine
        self._folder = tempfile.TemporaryDirectory(prefix="sbx-")
        if isinstance(engine, int):
            self._listener = socket.create_server(("127.0.0.1", 0))
            self.url = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(f"{self._folder.name}/docker.sock")
            self._listener.listen(64)
            self.url = f"unix://{self._folder.name}/docker.sock"
        self.held = threading.Event()
        self.cut = threading.Event()
        self._open = threading.Event()
        self._pattern = b""
        self._after = False
        self._answer_from: socket.socket | None = None
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
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
            try:
                there = self._connected()
            except OSError:
                here.close()
                continue
            self._ends += [here, there]
            for source, target, asks in ((here, there, True), (there, here, False)):
                threading.Thread(target=self._carry, args=(source, target, asks), daemon=True).start()

    def _connected(self) -> socket.socket:
        if isinstance(self._engine, int):
            return socket.create_connection(("127.0.0.1", self._engine))
        there = socket.socket(socket.AF_UNIX)
        try:
            there.connect(self._engine)
        except OSError:
            there.close()
            raise
        return there

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
