"""Random shell scripts, cell by cell through a session and whole through a plain shell in the same sandbox.

``python -m tests.differential 5000 [SEED [SHELL]]`` tries so many on bubblewrap and prints what differs.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass

from sandbox_magic import Sandbox
from sandbox_magic.session import Session

# What ends a script but not a session (`${x?}`, a syntax error) stands in subshells only: docs/cells.md says why.
STATEMENTS = (
    "{v}={w}",
    '{v}="${v}$?{w}"',
    'echo "$?:${v}"',
    "echo {w} | cat",
    "(exit {n})",
    "(exit {n}) || echo or $?",
    "! (exit {n})",
    "(exit {n}) && echo and\necho after $?",  # not at the end of a cell: docs/cells.md says why
    "(exit {n}) | (exit {m})",
    "false",
    "cd /tmp",
    "cd /tmp/differential",
    "cd /nonexistent 2>/dev/null",
    '{f}() {{ echo {f} $# "$@"; return {n}; }}',
    "{f} a '{w} {w}' 2>/dev/null",
    "command -v {f}",
    "set -- {w} '{v} {w}'",
    'echo $# "$@"',
    "[ $# = 0 ] || shift",
    "for {v} in a {w} c; do echo ${v}; [ ${v} = {w} ] && break; done",
    "i=0; while [ $i -lt {m} ]; do i=$((i+1)); echo $i; done",
    'case "${v}" in *{w}*) echo has;; "") echo empty;; *) echo other;; esac',
    "cat <<END\n{w} ${v}\nEND",
    "cat <<'END'\n{w} ${v} \\\nEND",
    "echo {w} \\\n {w}",
    "echo '{w}\n{w}'",
    "x=$({f} {w} 2>/dev/null); echo $? $x",
    "(: ${{never?}}) 2>/dev/null",
    "(. /nonexistent) 2>/dev/null",
    "(eval 'if') 2>/dev/null",
    "(cd /; {v}=inner; pwd)",
    "export {v}; sh -c 'echo \"[${v}]\"'",
    "unset {v}",
    "set -u; (echo ${{{v}-unset}}); set +u",
    "set -f; echo /tm*; set +f",
    "set -C; echo {w} 2>/dev/null >/tmp/differential/f; set +C",
    "exec 3>/tmp/differential/g; echo {w} >&3; exec 3>&-; cat /tmp/differential/g",
    "umask 0{n}2; umask",
    "read {v} <<END\n{w} {w}\nEND",
    "printf '%s-' {w} \"${v}\"; echo",
    "eval 'echo {w}; (exit {m})'",
    "trap 'echo usr {w}' USR1; kill -USR1 $$; echo sent",
    "(trap 'echo left' EXIT; exit {n})",
    "{w}() (exit {n}); {w}",
    "echo $((0{n} + {m})) $LINENO >/dev/null",
    "{{ echo group; (exit {n}); }} # {w}",
    "set -e; (exit {m}) || :; set +e",
    "set -e",
    "(sleep 0.01; exit {n}) & wait $!",
    "echo {w} >&2",
    ":",
)
BASH = (
    "a=({w} 'x y' {n}); echo ${{#a[@]}} \"${{a[1]}}\"",
    'a+=({w}); echo "${{a[@]}}"',
    'declare -A m=([{w}]={n}); echo "${{m[{w}]}}"',
    "[[ ${v} = {w}* ]]",
    "((  {n} - {m} ))",
    "set -o pipefail; (exit {n}) | cat",
    "trap 'echo ERR $?' ERR",
    "trap - ERR",
    "set -o posix",
    "set +o posix",
    "shopt -s nullglob; echo /nonexistent*; shopt -u nullglob",
    "declare -i k={n}; k+=1; echo $k",
    "{f}() {{ local {v}=inside; echo ${v}; }}; {f}",
    'cat <<<"${v}"',
    "echo ${{{v}^^}} ${{{v}//a/b}}",
    "enable -n printf; enable printf",
)
DUMP = 'pwd; umask; echo "$#:$*"; for n in aa bb cc; do eval "echo \\$n=\\${$n-none}"; done; command -v ff gg'


@dataclass(frozen=True)
class Outcome:
    """What is compared: what was printed, how it ended."""

    stdout: str
    exit_code: int | None


def script(seed: int, *, bash: bool) -> list[str]:
    """Return the cells of one script."""
    rng = random.Random(seed)  # to be found again
    choices = STATEMENTS + BASH if bash else STATEMENTS

    def statement() -> str:
        return rng.choice(choices).format(
            v=rng.choice(("aa", "bb", "cc")),
            w=rng.choice(("w1", "word", "aXb")),
            f=rng.choice(("ff", "gg")),
            n=rng.randrange(8),
            m=rng.randrange(4),
        )

    cells = ["\n".join(statement() for _ in range(rng.randint(1, 4))) for _ in range(rng.randint(2, 5))]
    return ["mkdir -p /tmp/differential; rm -f /tmp/differential/*; cd /tmp/differential", *cells, DUMP]


def through_session(box: Sandbox, cells: list[str]) -> Outcome:
    """Run the cells one after another in a session of their own."""
    machine = box._machine
    assert machine is not None
    session = Session(machine, env={"LANG": "C.UTF-8", "HOME": machine.home}, shell=box.spec.shell)
    try:
        stdout, code = "", None
        for cell in cells:
            result = session.run(cell, timeout=30)
            stdout, code = stdout + result.stdout, result.exit_code
            if result.shell_ended:
                break
        return Outcome(stdout, code)
    finally:
        session.close()


def through_shell(box: Sandbox, cells: list[str], shell: str) -> Outcome:
    """Run the same as one script."""
    text = "\n".join(cells) + "\n"
    result = box.run(f"cat >/tmp/script; cd /work; {shell} /tmp/script </dev/null", stdin=text, timeout=30)
    return Outcome(result.stdout, result.exit_code)


def differences(box: Sandbox, seeds: range, shell: str) -> list[str]:
    """Return what differs, each with its script."""
    found = []
    for seed in seeds:
        cells = script(seed, bash=shell == "bash")
        ours, plain = through_session(box, cells), through_shell(box, cells, shell)
        if ours != plain:
            found.append(f"seed {seed}\ncells: {cells}\nours:  {ours}\nplain: {plain}")
    return found


def main() -> int:
    """Try as many as asked."""
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    shell = sys.argv[3] if len(sys.argv) > 3 else "bash"
    with Sandbox(engine="bubblewrap", shell=shell) as box:
        found = differences(box, range(seed, seed + count), shell)
    sys.stdout.write("\n\n".join([*found, f"{count} scripts in {shell}, {len(found)} differ"]) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
