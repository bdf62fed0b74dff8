"""Settings of the magics: their values, from the most to the least specific place, and where each came from."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from IPython.core.magic import Magics
from traitlets import Bool, Float, TraitError, TraitType, Unicode

from sandbox_magic.errors import InvalidOptions
from sandbox_magic.spec import SandboxSpec, parse_size

PREFIX = "SANDBOX_MAGIC_"
SECTION = "sandbox-magic"


def find_pyproject(start: Path) -> Path | None:
    """Return the nearest `pyproject.toml`, from `start` upwards."""
    return next((file for folder in (start, *start.parents) if (file := folder / "pyproject.toml").is_file()), None)


def read_pyproject(file: Path, names: Iterable[str]) -> dict[str, object]:
    """Return what `[tool.sandbox-magic]` sets, by the names of our settings.

    Raises:
        InvalidOptions: The file is not TOML, or has a setting that we do not have.
    """
    try:
        section = tomllib.loads(file.read_text("utf-8")).get("tool", {}).get(SECTION, {})
    except (OSError, ValueError, AttributeError) as error:
        raise InvalidOptions(f"{file} cannot be read: {error}") from error
    known = list(names)
    found: dict[str, object] = {}
    for key, value in section.items():
        name = key.replace("-", "_")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
            raise InvalidOptions(f"{file}: [tool.{SECTION}] has an unknown setting {key!r}: {hint}")
        found[name] = value
    return found


def read_environment(variables: Mapping[str, str], names: Iterable[str]) -> dict[str, object]:
    """Return what `SANDBOX_MAGIC_*` sets, by the names of our settings; an empty text sets nothing."""
    return {name: text for name in names if (text := variables.get(PREFIX + name.upper()))}


_WORDS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def _converted(trait: TraitType[Any, Any], value: object) -> object:
    if isinstance(trait, Unicode):
        return str(value)  # a size in bytes may be written as a number
    if isinstance(trait, Bool) and isinstance(value, str):
        if value.lower() not in _WORDS:
            raise ValueError(f"it is one of {', '.join(_WORDS)}")
        return _WORDS[value.lower()]
    return trait.from_string(value) if isinstance(value, str) else value


_SPEC = SandboxSpec()  # one source of defaults


class Settings(Magics):  # type: ignore[misc, unused-ignore] # untyped in the oldest release that we support
    """The traits behind `%config SandboxMagics`; an option on a cell's first line goes before all of them.

    Raises:
        InvalidOptions: The environment or `pyproject.toml` sets something that we cannot take. Falling back to a
            default could be less closed than what was asked for.
    """

    image = Unicode(None, allow_none=True, help="Image of a new sandbox; None: debian:stable-slim.").tag(config=True)
    engine = Unicode(_SPEC.engine, help="What runs a new sandbox: auto, docker, podman or bubblewrap.").tag(config=True)
    profile = Unicode(_SPEC.profile, help="How closed a new sandbox is: sealed, standard, open.").tag(config=True)
    memory = Unicode(None, allow_none=True, help="Memory limit of a new sandbox, such as 2g.").tag(config=True)
    cpus = Float(None, allow_none=True, help="How many processors a new sandbox may use.").tag(config=True)
    restore = Bool(_SPEC.restore, help="Give a new shell back more than directory and exports.").tag(config=True)
    spare = Bool(None, allow_none=True, help="Keep one more ready for a reset; None: if cheap.").tag(config=True)
    allow_degraded = Bool(False, help="Start a new sandbox also if a limit is not enforced.").tag(config=True)
    timeout = Float(None, allow_none=True, help="Seconds after which a cell is stopped; None: never.").tag(config=True)
    raise_error = Bool(True, help="Raise if the command of a cell fails.").tag(config=True)
    separate_stderr = Bool(False, help="Show stderr apart, not in order of arrival.").tag(config=True)
    quiet = Bool(False, help="Show no output and no progress.").tag(config=True)
    take_name = Bool(False, help="Register %%sandbox even if another extension owns it.").tag(config=True)

    def __init__(self, shell: Any = None, **kwargs: Any) -> None:
        super().__init__(shell=shell, **kwargs)
        names = self._setting_names()
        self._origins = {name: "configuration" if name in self._configured() else "default" for name in names}
        if (file := find_pyproject(Path.cwd())) is not None:
            self._take({name: (value, str(file)) for name, value in read_pyproject(file, names).items()})
        found = read_environment(os.environ, names)
        self._take({name: (value, PREFIX + name.upper()) for name, value in found.items()})
        self.observe(self._set_by_user, names=names)

    def origins(self) -> list[tuple[str, object, str]]:
        """Return each setting with its value and the place it came from."""
        return [(name, getattr(self, name), origin) for name, origin in self._origins.items()]

    def spec_defaults(self) -> dict[str, object]:
        """Return the fields of `SandboxSpec` that are set somewhere; the spec's own defaults are not repeated."""
        fields = ("image", "engine", "profile", "memory", "cpus", "restore", "spare", "allow_degraded")
        names = [name for name in fields if self._origins[name] != "default"]
        values = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if "memory" in values:
            values["memory"] = parse_size(values["memory"])
        return values

    @staticmethod
    def _setting_names() -> list[str]:
        return list(Settings.class_own_traits(config=True))

    def _configured(self) -> set[str]:
        """Return what IPython's configuration file or command line sets: it counts like `%config`."""
        return {name for section in self.section_names() for name in self.config.get(section, {})}

    def _take(self, found: Mapping[str, tuple[object, str]]) -> None:
        for name, (value, origin) in found.items():
            if self._origins[name] == "configuration":
                continue
            try:
                setattr(self, name, _converted(self.traits()[name], value))
            except (TraitError, ValueError) as error:
                raise InvalidOptions(f"{origin}: {value!r} is no value for {name}: {error}") from error
            self._origins[name] = origin

    def _set_by_user(self, change: Any) -> None:
        self._origins[change["name"]] = "%config"
