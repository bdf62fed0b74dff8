"""What the options of a cell do in a real kernel, and the line magic."""

from __future__ import annotations

import pytest
from kernels import Kernel, assert_short

from sandbox_magic.jupyter.options import help_text


def test_out_and_err_bind_instead_of_showing(kernel: Kernel) -> None:
    cell = kernel.ok("%%sandbox --out o --err e --result r\necho one; echo two >&2")
    assert cell.kinds() == set()
    assert kernel.value("o, e, r.exit_code, r is _sandbox") == repr(("one\n", "two\n", 0, True))
    cell = kernel.ok("%%sandbox -o o\necho three; echo shown >&2")
    assert cell.stdout + cell.stderr == "shown\n"
    assert kernel.value("o") == repr("three\n")


def test_err_shows_stdout_only_and_tee_shows_both(kernel: Kernel) -> None:
    assert kernel.ok("%%sandbox --err e\necho one; echo two >&2").stdout == "one\n"
    cell = kernel.ok("%%sandbox -o o --err e --tee\necho three; echo four >&2")
    assert (cell.stdout, cell.stderr) == ("three\n", "four\n")
    assert kernel.value("o, e") == repr(("three\n", "four\n"))


def test_out_is_bound_when_the_cell_fails(kernel: Kernel) -> None:
    kernel.ok("o = 'old'")
    assert kernel.run("%%sandbox -o o\necho partial; false").status == "error"
    assert kernel.value("o") == repr("partial\n")


def test_python_variables_become_environment(kernel: Kernel) -> None:
    kernel.ok('from pathlib import Path\ntext = "a b; $x \'\\"\\n*"; number = 3; yes = True; path = Path("/tmp/x y")')
    kernel.ok("listing = [1, 'zwei']")
    cell = kernel.ok(
        "%%sandbox -e text -e number -e yes -e path -e listing -e 'given=two words'\n"
        'printf "<%s>" "$text" "$number" "$yes" "$path" "$listing" "$given"'
    )
    assert cell.stdout == '<a b; $x \'"\n*><3><true></tmp/x y><[1, "zwei"]><two words>'
    missing = kernel.run("%%sandbox -e numbr\necho ran")
    assert_short(missing, "InvalidOptions")
    assert "did you mean number?" in missing.error and missing.stdout == ""


def test_stdin_is_empty_or_a_python_variable(kernel: Kernel) -> None:
    kernel.ok("given = 'from python\\n'")
    assert kernel.ok("%%sandbox\ncat; echo eof").stdout == "eof\n"
    assert kernel.ok("%%sandbox --stdin given\ncat; echo eof").stdout == "from python\neof\n"


def test_cwd(kernel: Kernel) -> None:
    assert kernel.ok("%%sandbox --cwd /usr/lib\npwd; cd /").stdout == "/usr/lib\n"
    wrong = kernel.run("%%sandbox --cwd /no/such\necho ran")
    assert_short(wrong, "InvalidOptions")
    assert "/no/such" in wrong.error and wrong.stdout == ""


def test_out_that_was_cut_is_said(kernel: Kernel) -> None:
    cell = kernel.ok("%%sandbox -o big\nhead -c 70000000 /dev/zero")
    assert cell.stdout.startswith("[66 MB were printed and only the first 64 MB are kept")
    assert kernel.value("len(big), _sandbox.truncated") == repr((64 << 20, True))


def test_quiet_shows_nothing_but_errors(kernel: Kernel) -> None:
    assert kernel.ok("%%sandbox -q\necho one; echo two >&2").kinds() == set()
    assert kernel.value("_sandbox.stdout, _sandbox.stderr") == repr(("one\n", "two\n"))
    assert kernel.run("%%sandbox -q\necho one; false").kinds() == {"error"}


@pytest.mark.parametrize("line", ["%%sandbox -h\necho ran", "%sandbox --help", "%%sbx -h\necho ran"])
def test_help_is_printed_and_nothing_runs(kernel: Kernel, line: str) -> None:
    assert kernel.ok(line).stdout == help_text()


def test_unknown_option_suggests(kernel: Kernel) -> None:
    cell = kernel.run("%%sandbox --tmeout 3\necho ran")
    assert_short(cell, "InvalidOptions")
    assert "unknown option --tmeout: did you mean --timeout?" in cell.error
    assert cell.stdout == ""
    assert kernel.value("_exit_code") == "None", "that of an earlier cell would be a lie"


@pytest.mark.parametrize(
    "option", ["--image busybox:latest", "--memory 99m", "--user 1000", "--cpus 0.5", "--mount /usr/share/doc:/mnt"]
)
def test_another_shape_asked_for_later_names_the_way_out(kernel: Kernel, option: str) -> None:
    cell = kernel.run(f"%%sandbox {option}\necho ran")
    assert_short(cell, "InvalidOptions")
    assert "%sandboxctl reset" in cell.error and "--name" in cell.error
    assert cell.stdout == ""
    assert kernel.ok("%%sandbox --image debian:stable-slim\necho same").stdout == "same\n"


def test_line_magic_shows_its_output_once(kernel: Kernel) -> None:
    for code in ("r = %sandbox echo hi", "%sandbox echo hi", "%sandbox --timeout 5 -- echo hi"):
        cell = kernel.ok(code)
        assert cell.kinds() == {"stream"}
        assert cell.stdout == "hi\n"
    assert kernel.value("r.stdout, r.exit_code") == repr(("hi\n", 0))
    (later,) = kernel.ok("r").contents("execute_result")
    assert "exit_code=0" in later["data"]["text/plain"]


def test_line_magic_takes_the_rest_of_the_line_as_it_is(kernel: Kernel) -> None:
    cell = kernel.ok("""%sandbox printf '<%s>' "a  b" $((1+1)) {a} -n""")
    assert cell.stdout == "<a  b><2><{a}><-n>"
