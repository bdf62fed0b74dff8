"""Python variables of a cell: its environment, its stdin, and what is set if it could not be run."""

from __future__ import annotations

import difflib
import json
import numbers
import os
from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, cast

from sandbox_magic.errors import InvalidOptions
from sandbox_magic.jupyter.options import CellOptions
from sandbox_magic.spec import check_env

if TYPE_CHECKING:
    from sandbox_magic.feed import Source


def environment(options: CellOptions, variables: Mapping[str, object]) -> dict[str, str]:
    """Return the environment variables of a cell, bare names taken from the Python variables.

    Raises:
        InvalidOptions: There is no such variable, or its value has no clear text.
    """
    found = {
        name: _storable(name, text) if text is not None else _as_text(name, _lookup("-e", name, variables))
        for name, text in options.env
    }
    check_env(found)
    return found


def stdin(options: CellOptions, variables: Mapping[str, object]) -> str | bytes | Source | None:
    """Return what the cell's stdin gets; `None` if nothing was asked for.

    Raises:
        InvalidOptions: There is no such variable, or it is neither text nor bytes nor gives them.
    """
    if options.stdin is None:
        return None
    value = _lookup("--stdin", options.stdin, variables)
    if isinstance(value, str | bytes):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, Iterator) or hasattr(value, "read"):
        return cast("Source", value)
    raise InvalidOptions(
        f"--stdin {options.stdin}: needs str, bytes, a file or an iterator of them, not {type(value).__name__}"
    )


def nothing_ran(variables: MutableMapping[str, Any]) -> None:
    """Set what every cell sets, after one that could not be run: the exit code of an earlier one would be a lie."""
    variables["_exit_code"] = None
    variables.setdefault("_sandbox", None)


def _lookup(flag: str, name: str, variables: Mapping[str, object]) -> object:
    try:
        return variables[name]
    except KeyError:
        near = difflib.get_close_matches(name, [known for known in variables if not known.startswith("_")], 1, 0.8)
        hint = f"; did you mean {near[0]}?" if near else ""
        text = f", or write {flag} {name}=text" if flag == "-e" else ""
        raise InvalidOptions(f"{flag} {name}: there is no Python variable {name}{hint}{text}") from None


def _as_text(name: str, value: object) -> str:
    match value:
        case bool():
            return str(value).lower()  # what shells and JSON call them; both are also commands
        case str():
            return _storable(name, str(value))
        case float():
            return str(float(value))  # NumPy's float shows as a call in some releases
        case numbers.Integral():
            return str(int(value))
        case os.PathLike():
            return _storable(name, os.fsdecode(value))
        case dict() | list():
            try:
                return json.dumps(value, ensure_ascii=False, allow_nan=False)
            except (TypeError, ValueError, RecursionError) as error:
                raise InvalidOptions(f"-e {name}: cannot be written as JSON: {error}") from error
    raise InvalidOptions(
        f"-e {name}: {type(value).__name__} has no clear text; pass str, int, float, bool, Path, dict or list"
    )


def _storable(name: str, text: str) -> str:
    if "\0" in text:
        raise InvalidOptions(f"-e {name}: an environment variable cannot hold a NUL byte")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidOptions(f"-e {name}: the value is not valid Unicode text") from None
    return text
