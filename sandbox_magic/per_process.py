"""`PerProcess`: what a process has one of, made when it is first needed, and anew in a forked child."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """Makes one object for a process. Thread-safe; to be kept in a module, for it is never forgotten.

    A forked child starts without it: the threads of the parent did not come along, and what they held is not ours.
    """

    def __init__(self, make: Callable[[], T], *, in_child: Callable[[T], object] | None = None) -> None:
        """Describe it.

        Args:
            make: Makes the object.
            in_child: Called in a forked child with the parent's object, such as to close what it holds open there.
        """
        self._make = make
        self._in_child = in_child
        self._made: T | None = None
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._forget)

    def __call__(self) -> T:
        """Return the object of this process."""
        made = self._made
        if made is None:
            with self._lock:
                made = self._made
                if made is None:
                    made = self._made = self._make()
        return made

    def _forget(self) -> None:
        made, self._made = self._made, None
        self._lock = threading.Lock()  # another thread may have held it at the moment of the fork
        if made is not None and self._in_child is not None:
            self._in_child(made)
