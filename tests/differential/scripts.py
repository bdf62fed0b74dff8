"""Random shell scripts, each a list of cells, the same for the same seed."""

from __future__ import annotations

import random
import re

# In the templates: {v} a variable, {w} a word, {f} a function, {n} and {m} small numbers, {s} and {t} statements, and
# {d} how deep it stands.

# Anywhere, also in subshells, loops and functions.
STATEMENTS = (
    "{v}={w}",
    '{v}="${v}$?{w}"',
    'echo "$?:${v}"',
    "echo {w} | cat",
    "(exit {n})",
    "(exit {n}) || echo or $?",
    "! (exit {n})",
    "(exit {n}) | (exit {m})",
    "false",
    "true",
    ":",
    "cd /tmp",
    "cd /tmp/differential",
    "cd /nonexistent",
    "cd ..; cd - >/dev/null; pwd",
    '{f}() {{ echo {f} $# "$@"; return {n}; }}',
    '{f}() {{ local {v}; {v}=inside; echo "${v}"; [ $# -lt {m} ] || return {n}; {f} "$@" {w}; }}',
    "{f} a '{w} {w}'",
    "command -v {f}",
    "unset -f {f}",
    "set -- {w} '{v} {w}'",
    'echo $# "$@"',
    "[ $# = 0 ] || shift",
    'for x; do echo "<$x>"; done',
    "for {v} in a {w} c; do echo ${v}; [ ${v} = {w} ] && break; done",
    "for x in 1 2 3; do [ $x = {m} ] && continue; echo $x; done",
    "i=0; while [ $i -lt {m} ]; do i=$((i+1)); echo $i; done",
    "i={m}; until [ $i -le 0 ]; do i=$((i-1)); done; echo $i",
    'echo a b c | while read -r x y; do echo "$y-$x"; done',
    'case "${v}" in *{w}*) echo has;; "") echo empty;; *) echo other;; esac',
    "case {w} in w?) echo 1;; [a-m]*) echo 2;; *) (exit {n});; esac",
    "cat <<END\n{w} ${v} $(echo {w}) $(({n}+1))\nEND",
    "cat <<'END'\n{w} ${v} \\\nEND",
    "cat <<-END | tr a-z A-Z\n\t{w}\n\t\t${v}\n\tEND",
    "cat <<A; cat <<B\n{w}\nA\n${v}\nB",
    "echo {w} \\\n {w}",
    "echo '{w}\n{w}'",
    'echo "a \'b \\"c\\" `echo {w}` $(echo "$(echo \'{w}\')")"',
    'x="$(printf \'%s\\n\\n\' {w})"; echo "[$x]"',
    "x=$({f} {w} 2>/dev/null); echo $? $x",
    'echo "${{{v}:-{w}}}" "${{{v}:+set}}" "${{#{v}}}" "${{{v}#?}}" "${{{v}%X*}}"',
    'echo "${{{v}:={w}}}"',
    "(: ${{never?}}) 2>/dev/null",
    "(. /nonexistent) 2>/dev/null",
    "(eval 'if') 2>/dev/null",
    "(cd /; {v}=inner; pwd)",
    "export {v}; sh -c 'echo \"[${v}]\"'",
    '{v}={w} sh -c \'echo "[${v}]"\'; echo "[${v}]"',
    "unset {v}",
    "(set -u; echo ${{{v}-unset}}; : $never; echo no) 2>/dev/null",
    "(set -e; (exit {m}); echo on)",
    "(readonly {v}={w}; {v}=other; echo on) 2>/dev/null",
    "set -f; echo /tm*; set +f",
    "set -C; echo {w} 2>/dev/null >/tmp/differential/f; set +C",
    "exec 3>/tmp/differential/g; echo {w} >&3; exec 3>&-; cat /tmp/differential/g",
    "{{ echo out; echo err >&2; }} 2>&1 | sort",
    "{{ echo {w}; echo err >&2; }} >/tmp/differential/h 2>&1; cat /tmp/differential/h",
    "echo {w} >/nonexistent/x",
    "cat </nonexistent",
    "umask 0{n}2; umask",
    "(umask 077; >/tmp/differential/p; ls -l /tmp/differential/p | cut -c1-10)",
    "read {v} <<END\n{w} {w}\nEND",
    'IFS=: read -r x y <<END\n{w}:{n}:{m}\nEND\necho "$x/$y"',
    '(IFS=X; set -- $({f} aXb; echo aXbXc); echo $# "$*")',
    'IFS=,; set -- 1 {w} 3; echo "$*"; unset IFS; set -- $*; echo $#',
    "printf '%s-' {w} \"${v}\"; echo",
    "printf '%d %x %5.2s|\\n' {n} 25{n} {w}",
    "eval 'echo {w}; (exit {m})'",
    'eval "{v}=\\$(echo \'{w} {w}\')"; echo "${v}"',
    "(trap 'echo left' EXIT; exit {n})",
    "(trap 'echo {w} $?' EXIT; (exit {m}))",
    "{w}() (exit {n}); {w}",
    "echo $((0{n} + {m} * 2)) $(( {n} > {m} ? {n} : {m} )) $((i = {n})) $i",
    "{{ echo group; (exit {n}); }} # {w}",
    "(sleep 0.01; exit {n}) & wait $!",
    "{{ echo bg {w}; exit {n}; }} & wait $!; echo $?",
    "(exit {n}) & p=$!; (exit {m}) & wait $p; echo $?; wait; echo $?",
    "echo {w} >&2",
    "nosuchcommand {w}",
    "/tmp/differential",
    'OPTIND=1; while getopts ab:c x -a -b {w} rest; do echo "$x ${{OPTARG-}}"; done; echo $OPTIND',
    "getopts x y -{w}; echo $? $y; OPTIND=1",
    "sh -c 'exit {n}'",
    "sh -c 'kill -TERM $$' 2>/dev/null; echo $?",
    "command -v cd; command -V nosuch >/dev/null 2>&1; echo $?",
    "test -d /tmp -a ! -e /nonexistent && echo yes || echo no",
    "{f}() {{\ncat <<END\n{w} $1\nEND\n}}; {f} {n}",
    "yes {w} | head -n {n} | sort -u",
    "set -- $(echo {w} {n} {m}); echo $3",
    "echo ${{10}} $1$2",
    "x='echo {w}; exit 9'; $x",
    "alias",
)
# What changes the shell for good, ends it, or speaks to it by its process id: not inside anything else.
TOP = (
    "(exit {n}) && echo and\necho after $?",  # not at the end of a cell: docs/cells.md says why
    "trap 'echo usr {w}' USR1; kill -USR1 $$; echo sent",
    "trap - USR1",
    "trap '' TERM; kill -TERM $$; echo ignored; trap - TERM",
    "trap 'echo bye $? {w}' EXIT",
    "trap - EXIT",
    "set -e; (exit {m}) || :; set +e",
    "set -e",
    "set +e",
    "set -u",
    "set +u",
    "set -a; {v}={w}; set +a; env | grep -c '^{v}={w}$'",
    "set -x; {v}={w}; set +x",
    "alias al='echo alias {w}'",
    "al {n}",
    "unalias al",
    "alias echo='echo {w}'\necho {n}\nunalias echo\necho {n}",
    "readonly ro={w}",
    "exec 4>/tmp/differential/i",
    "echo {w} >&4; cat /tmp/differential/i",
    "exec 4>&-",
    "echo() {{ printf 'mine %s\\n' \"$*\"; }}\necho {w}\nunset -f echo",
    "PATH=/nonexistent; ls; PATH=/usr/sbin:/usr/bin:/sbin:/bin",
    "exit {n}",
    "(\n{s}\n) >/tmp/differential/j; exit $?",
)
# What ends a script, but of a session only the cell: docs/cells.md.
FATAL = (
    ": ${{never?}}\necho {w}",
    ": ${{never:?{w}}}",
    "set -u; echo $never; echo on\nset +u",
    "echo {w}\n. /nonexistent\necho on",
    "set -o nosuch\necho on",
    "echo {w}\nif true; then echo {w}",
    "echo {w}\nfi\necho {w}",
    "echo {w}; )\necho {w}",
    "{{ echo {w}",
    "for x in 1; echo {w}",
    "echo {w} | | cat",
    "cat <<END; done\n{w}\nEND",
    "ro={w}; echo line\necho next",
    "readonly rp={w}; rp=2; echo line\necho next",
    "unset ro\necho next",
    "shift 99\necho next",
    "export 1x={w}\necho next",
    "echo $((1 / 0)); echo line\necho next",
    "echo $((1 +)); echo line\necho next",
    "{v}=$(({n} % 0)) echo {w}\necho next",
    "echo ${{{v}!}}; echo line\necho next",
    "exec /nonexistent\necho next",
    "eval 'fi'; echo line\necho next",
    "break; continue; echo {w}",
)
COMPOUNDS = (
    "if {s}\nthen\n{t}\nelse\n{s}\nfi",
    "if ! {{ {s}\n}}; then echo not; elif {t}\nthen echo elif; fi",
    "for x in {w} {n}; do\n{s}\ndone",
    "j=0; while [ $j -lt 2 ]; do j=$((j+1))\n{s}\ndone",
    "j=0; until [ $j -ge 2 ]; do j=$((j+1))\n{s}\n{t}\ndone",
    "(\n{s}\n{t}\n)",
    "{{\n{s}\n{t}\n}}",
    "{{\n{s}\n}} | cat",
    'echo {w} | {{\n{s}\nread -r {v}; echo "${v}"; }}',
    "h{d}() {{\n{s}\n}}\nh{d} {w}",
    "h{d}() (\n{s}\n); h{d} {w}; echo $?",
    "case {w} in w*)\n{s}\n;; *)\n{t}\n;; esac",
    'x=$(\n{s}\n); echo "$?[$x]"',
    "{{\n{s}\n}} && {{\n{t}\n}} || echo neither",
    "{{\n{s}\n}} >/tmp/differential/k 2>&1; cat /tmp/differential/k",
    "(\n{s}\n) & wait $!; echo $?",
    "(set -eu\n{s}\n{t}\n)",
    "(trap 'echo trapped' EXIT\n{s}\n)",
)
BASH = (
    "a=({w} 'x y' {n}); echo ${{#a[@]}} \"${{a[1]}}\"",
    'a+=({w}); echo "${{a[@]}}"',
    'a[5]={w}; echo "${{!a[@]}}" "${{a[-1]}}"; unset "a[5]"',
    "unset a; a=(3 1 2); printf '%s\\n' \"${{a[@]}}\" | sort | tr '\\n' ' '; echo \"${{a[@]:1:2}}\"",
    'a=(3 1 2); echo "${{a[@]/1/{w}}}"',
    'declare -A m=([{w}]={n}); echo "${{m[{w}]}}"',
    'declare -A m; m[{w}]+={n}; m["x y"]={m}; for x in "${{!m[@]}}"; do echo "$x=${{m[$x]}}"; done | sort',
    "[[ ${v} = {w}* ]]",
    '[[ {w} =~ ^(w.)(.*)$ ]] && echo "${{BASH_REMATCH[@]}}"; echo $?',
    "[[ -n ${v} && ! {w} < aaa ]] || echo neither",
    "((  {n} - {m} ))",
    "for ((i = 0; i < {m}; i++)); do echo $i; done",
    "let 'i = {n} ** 2' i++; echo $i $((16#ff)) $((i <<= 1))",
    "(set -o pipefail; (exit {n}) | cat)",
    '{{ (exit {n}) | (exit {m}) | true; }}; echo "${{PIPESTATUS[@]}}"',
    "shopt -s nullglob; echo /nonexistent*; shopt -u nullglob",
    "declare -i k={n}; k+=1; echo $k",
    "declare -l lo=ABC; declare -u up=$lo; echo $lo $up",
    'declare -n ref={v}; ref={w}; echo "${v}"; unset -n ref',
    "{f}() {{ local {v}=inside; local -a l=(1 2); echo ${v} ${{#l[@]}} ${{FUNCNAME[0]}}; }}; {f}",
    "{f}() {{ local -; set -f; echo /tm*; }}; {f}; echo /tm*",
    'cat <<<"${v}"',
    'read -r -a a <<<"{w} {n}  {m}"; declare -p a',
    'read -r -d X {v} <<<{w}Xend; echo "$?${v}"',
    "mapfile -t a < <(printf '%s\\n' {w} {n}); echo \"${{#a[@]}}:${{a[1]}}\"",
    "echo ${{{v}^^}} ${{{v}//a/b}} ${{{v}@Q}} ${{{v}:1:2}} ${{!v*}}",
    "printf '%q %s\\n' \"{w} '${v}\" $'a\\tb\\'c'",
    "printf -v {v} '%03d' {n}; echo \"${v}\"",
    "echo {{a,b{w}}}{{1..{n}}}",
    "cat <(echo {w}) <(echo {n})",
    "diff <(echo {w}) <(echo w1) >/dev/null; echo $?",
    'while read -r x; do {v}=$x; done < <(echo {w}; echo {n}); echo "${v}"',
    'select x in a {w}; do echo "$REPLY$x"; break; done <<<{m} 2>/dev/null; echo $?',
    "pushd /tmp >/dev/null; dirs +0; popd >/dev/null; pwd",
    "pushd /nonexistent; dirs | wc -w",
    '{{ coproc {{ read -r x; echo "got $x"; sleep 0.2; }}; }} 2>/dev/null; echo {w} >&"${{COPROC[1]}}"\n'
    'read -r x <&"${{COPROC[0]}}"; echo "$x"; wait',
    "declare -f {f}; type -t {f} cd if ls",
    "declare -p {v} a m k 2>/dev/null",
    "exec {{fd}}>/tmp/differential/l; echo {w} >&$fd; exec {{fd}}>&-; cat /tmp/differential/l",
    "{{ echo {w}; nosuch; }} &>/dev/null; echo $?",
    "export -f {f} 2>/dev/null; bash -c '{f} child' 2>/dev/null; echo $?; export -nf {f} 2>/dev/null",
    "time (exit {n}) 2>/dev/null; echo $?",
    "builtin echo {w}; builtin nosuch; enable -n printf; enable printf",
    "{f}() {{ return; }}; (exit {n}); {f}; echo $?",
    "trap -p USR1; ulimit -c; hash -r",
    "case {w} in a*) echo A;;& *X*) echo X;& *) echo end;; esac",
    "echo $'\\x41\\n{w}' \"${{v@A}}\"",
    'x=$(<<<{w} cat); echo "$x" $(( ${{#x}} ))',
    "command eval 'echo {w}'; command false; echo $?",
    "test -v {v}; echo $?; [ -o pipefail ]; echo $?",
)
BASH_TOP = (
    "trap 'echo ERR $?' ERR",
    "trap - ERR",
    "set -E; trap 'echo E' ERR; {f}; trap - ERR; set +E",
    "set -o posix",
    "set +o posix",
    "set -euo pipefail",
    "set +eu; set +o pipefail",
    "set -o pipefail",
    "shopt -s extglob\necho /tm+(p|q) ${{{v}##+([a-w])}}",
    'shopt -s lastpipe; echo {w} | read -r {v}; echo "${v}"; shopt -u lastpipe',
    "shopt -s inherit_errexit nocasematch; [[ W1 = w1 ]]; echo $?; shopt -u inherit_errexit nocasematch",
    "enable -n echo; command -V echo; enable echo",
    'command_not_found_handle() {{ echo "no $1"; return {n}; }}\nnosuchcommand {w}\nunset -f command_not_found_handle',
    "declare -r rd={n}; rd=2; echo line\necho next",
    "BASH_ENV=/nonexistent; PS4='+{w} '",
    "set -k; sh -c 'echo \"$kk\"' kk={w}; set +k",
    "set -B; set +B; echo {{a,b}}; set -B",
    "set -T; set +T; set -h",
)
DUMP = (
    'pwd; umask; echo "$#:$*"; for n in aa bb cc; do eval "echo \\$n=\\${$n-none}"; done; command -v ff gg',
    "for n in a C e f u x; do case $- in *$n*) echo on $n;; esac; done; alias al; echo ${IFS-default}",
)
BASH_DUMP = (
    "declare -p a m k ro 2>/dev/null; declare -f; trap -p USR1 ERR; shopt -p extglob nullglob",
    "set -o | grep -v -e hist -e emacs",
)


class _Writer:
    """Makes statements from one stream of random numbers."""

    def __init__(self, seed: int, shell: str) -> None:
        self.rng = random.Random(seed)  # to be found again
        bash = shell == "bash"
        self._plain = STATEMENTS + BASH if bash else STATEMENTS
        self._top = TOP + BASH_TOP if bash else TOP
        if shell == "zsh":  # where an alias counts from the next cell on
            self._top = tuple(template for template in TOP if "al" not in re.findall(r"al(?=ias|\b)", template))

    def _fill(self, template: str, depth: int) -> str:
        rng = self.rng
        return template.format(
            v=rng.choice(("aa", "bb", "cc")),
            w=rng.choice(("w1", "word", "aXb")),
            f=rng.choice(("ff", "gg")),
            n=rng.randrange(8),
            m=rng.randrange(4),
            d=depth,
            s=self.inner(depth + 1) if "{s}" in template else "",
            t=self.inner(depth + 1) if "{t}" in template else "",
        )

    def inner(self, depth: int) -> str:
        """Return a statement that may stand anywhere."""
        nested = depth < 3 and self.rng.random() < 0.2
        return self._fill(self.rng.choice(COMPOUNDS if nested else self._plain), depth)

    def outer(self) -> str:
        """Return a statement of a cell."""
        chance = self.rng.random()
        if chance < 0.03:
            return self._fill(self.rng.choice(FATAL), 0)
        if chance < 0.2:
            return self._fill(self.rng.choice(self._top), 0)
        return self.inner(0)


def script(seed: int, shell: str) -> list[str]:
    """Return the cells of one script."""
    writer = _Writer(seed, shell)
    bash = shell == "bash"
    rng = writer.rng
    cells = ["\n".join(writer.outer() for _ in range(rng.randint(1, 4))) for _ in range(rng.randint(2, 6))]
    first = "rm -rf /tmp/differential; mkdir -p /tmp/differential; cd /tmp/differential"
    if bash:
        first += "; shopt -s expand_aliases"
    last = [*DUMP, *BASH_DUMP] if bash else [*DUMP]
    # An EXIT trap fires at the end of a script, but not of the last cell: so the last cell ends the shell.
    return [first, *cells, "\n".join([*last, f"exit {rng.randrange(4)}"])]
