"""What a sandbox says of itself, read from inside by the control shell with builtins only."""

from __future__ import annotations

from sandbox_magic.ansi import sanitize
from sandbox_magic.control import ControlShell
from sandbox_magic.errors import SandboxError

_SCRIPT = r"""
while IFS= read -r line; do
  case $line in Uid:*|CapEff:*|NoNewPrivs:*|Seccomp:*) echo "$line" ;; esac
done </proc/self/status
count=0; for file in /proc/[0-9]*/stat; do count=$((count + 1)); done; echo "processes: $count"
IFS= read -r line </proc/version; echo "kernel: $line"
while IFS= read -r line; do case $line in *:*) echo "interface: ${line%%:*}";; esac; done </proc/net/dev
"""

# What gVisor says at /proc/version, whatever the host's kernel is; nothing without capabilities can say it instead.
_GVISOR = "#1 SMP Sun Jan 10 15:06:54 PST 2016"
_NAMES = {"Uid": "user id", "CapEff": "capabilities", "NoNewPrivs": "no new privileges", "Seccomp": "seccomp"}
_NAMES["processes"] = "processes"


def inside(control: ControlShell) -> dict[str, object]:
    """Return facts read inside; what could not be read is named as unknown, never guessed."""
    try:
        answer = control.call(_SCRIPT)
    except SandboxError as error:
        return {"inside": f"unknown: {error}"}
    facts: dict[str, object] = {}
    interfaces = []
    for line in answer.splitlines():
        key, _, value = (sanitize(part.strip()) for part in line.partition(":"))
        if key == "interface":
            interfaces.append(value)
        elif key == "kernel":
            facts["kernel"] = f"{value.removeprefix('Linux version ').split(' ')[0]}{' (gVisor)' * (_GVISOR in value)}"
        elif key == "Uid":
            facts[_NAMES[key]] = value.partition("\\t")[0]
        elif key in _NAMES:  # nothing else: what answers is inside, and could speak of limits
            facts[_NAMES[key]] = value
    facts["network interfaces"] = ", ".join(interfaces) or "unknown"
    return facts
