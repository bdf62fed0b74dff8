"""Where settings come from, what goes before what; and when a failing cell gets the hint about the network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from sandbox_magic.errors import InvalidOptions
from sandbox_magic.jupyter.hints import OFFLINE, with_hints
from sandbox_magic.jupyter.magics import SandboxMagics, load_ipython_extension, unload_ipython_extension
from sandbox_magic.jupyter.status import one_line
from sandbox_magic.result import Nothing, Result


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.chdir(tmp_path)
    for name in SandboxMagics._setting_names():
        monkeypatch.delenv(f"SANDBOX_MAGIC_{name.upper()}", raising=False)
    monkeypatch.setattr("sandbox_magic.jupyter.magics.sweep_in_background", lambda: None)
    (tmp_path / "pyproject.toml").write_text("")  # the nearest one is this, not that of the checkout
    shell = InteractiveShell()
    yield shell
    unload_ipython_extension(shell)
    shell.history_manager.end_session()


def load(shell: Any) -> SandboxMagics:
    load_ipython_extension(shell)
    return next(known for known in shell.configurables if isinstance(known, SandboxMagics))


def origin(magics: SandboxMagics, name: str) -> tuple[object, str]:
    return next((value, origin) for known, value, origin in magics.origins() if known == name)


def test_defaults_are_not_wishes(shell: Any) -> None:
    magics = load(shell)
    assert magics.spec_defaults() == {}
    assert {origin for _, _, origin in magics.origins()} == {"default"}


def test_config_before_environment_before_pyproject(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path("pyproject.toml").resolve()
    file.write_text(
        '[tool.sandbox-magic]\nimage = "file"\nmemory = "1g"\nprofile = "sealed"\nraise-error = false\ntimeout = 5'
    )
    monkeypatch.setenv("SANDBOX_MAGIC_IMAGE", "environment")
    monkeypatch.setenv("SANDBOX_MAGIC_MEMORY", "2g")
    magics = load(shell)
    shell.run_line_magic("config", "SandboxMagics.image = 'typed'")
    assert origin(magics, "image") == ("typed", "%config")
    assert origin(magics, "memory") == ("2g", "SANDBOX_MAGIC_MEMORY")
    assert origin(magics, "profile") == ("sealed", str(file))
    assert origin(magics, "raise_error") == (False, str(file))
    assert origin(magics, "timeout") == (5.0, str(file))
    assert magics.spec_defaults() == {"image": "typed", "memory": 2 * 1024**3, "profile": "sealed"}


def test_configuration_file_goes_before_the_environment(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.config.SandboxMagics.image = "configured"
    monkeypatch.setenv("SANDBOX_MAGIC_IMAGE", "environment")
    assert origin(load(shell), "image") == ("configured", "configuration")


def test_nearest_pyproject_counts_also_without_our_section(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("pyproject.toml").write_text('[tool.sandbox-magic]\nimage = "outer"')
    inner = Path("inner/deeper")
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    assert load(shell).image == "outer"
    Path("pyproject.toml").write_text("[project]\nname = 'x'")
    assert load(shell).spec_defaults() == {}


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ('[tool.sandbox-magic]\nimagee = "x"', "did you mean image?"),
        ("[tool.sandbox-magic]\nzzz = 1", "there are: "),
        ('[tool.sandbox-magic]\ntimeout = "soon"', "'soon' is no value for timeout"),
        ("[tool.sandbox-magic]\nquiet = 7", "7 is no value for quiet"),
        ("[tool", "cannot be read"),
    ],
)
def test_wrong_setting_is_an_error_and_leaves_nothing(shell: Any, toml: str, said: str) -> None:
    """A default may be less closed than what was meant."""
    Path("pyproject.toml").write_text(toml)
    with pytest.raises(InvalidOptions) as error:
        load_ipython_extension(shell)
    assert said in str(error.value)
    assert not any(isinstance(known, SandboxMagics) for known in shell.configurables)
    assert "sbx" not in shell.magics_manager.magics["cell"]


@pytest.mark.parametrize(
    ("text", "value"), [("no", False), ("Off", False), ("0", False), ("YES", True), ("true", True)]
)
def test_words_for_yes_and_no(shell: Any, monkeypatch: pytest.MonkeyPatch, text: str, value: bool) -> None:
    monkeypatch.setenv("SANDBOX_MAGIC_QUIET", text)
    assert load(shell).quiet is value


def test_wrong_environment_is_an_error(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_MAGIC_RAISE_ERROR", "perhaps")
    with pytest.raises(InvalidOptions, match="SANDBOX_MAGIC_RAISE_ERROR: 'perhaps' is no value"):
        load_ipython_extension(shell)


def test_load_twice_and_unload_leave_one_and_none(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    load_ipython_extension(shell)
    load_ipython_extension(shell)
    assert sum(isinstance(known, SandboxMagics) for known in shell.configurables) == 1
    unload_ipython_extension(shell)
    assert not any(isinstance(known, SandboxMagics) for known in shell.configurables)
    assert not {"sandbox", "sbx", "sandboxctl"} & {
        name for kind in shell.magics_manager.magics.values() for name in kind
    }
    assert capsys.readouterr() == ("", "")


def test_foreign_magic_is_left_alone_until_the_user_says_so(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def foreign(line: str, cell: str) -> None:
        """Belong to somebody else."""

    shell.register_magic_function(foreign, "cell", "sandbox")
    magics = load(shell)
    cells = shell.magics_manager.magics["cell"]
    assert cells["sandbox"] is foreign and cells["sbx"] == magics.sandbox
    said = capsys.readouterr().err
    assert f"%%sandbox belongs to {__name__}" in said and "%%sbx" in said and "take_name = True" in said
    shell.run_line_magic("config", "SandboxMagics.take_name = True")
    assert cells["sandbox"] == magics.sandbox


class Printed(Nothing):
    def __init__(self, text: bytes) -> None:
        self.text = text

    def stdout(self) -> bytes:
        return self.text

    stderr = output = stdout


@pytest.mark.parametrize(
    "text",
    [
        b"curl: (6) Could not resolve host: example.org",
        b"Temporary failure resolving 'mirror.example.org'",
        b"Failed to establish a new connection: [Errno -3] Temporary failure in name resolution",
        b"wget: bad address 'example.org'",
        b"ping: connect: Network is unreachable",
        b"getaddrinfo EAI_AGAIN registry",
        b"fatal: unable to access 'https://x/': Could not resolve host: x",
    ],
)
def test_offline_failure_gets_the_hint(text: bytes) -> None:
    failed = Result("x", 1, 0.1, Printed(text), notes=("first",))
    assert with_hints(failed, online=False).notes == ("first", OFFLINE)
    assert with_hints(failed, online=True) is failed


@pytest.mark.parametrize(("code", "text"), [(0, b"Could not resolve host"), (1, b"No such file"), (1, b"")])
def test_no_hint_without_reason(code: int, text: bytes) -> None:
    result = Result("x", code, 0.1, Printed(text))
    assert with_hints(result, online=False) is result


def test_one_line_is_one_line_and_shows_what_would_act() -> None:
    assert one_line("a\nb\t c") == "a b c"
    assert "\x1b" not in one_line("\x1b[2Jx") and "2Jx" in one_line("\x1b[2Jx")
    assert len(one_line("x" * 1000)) == 200
