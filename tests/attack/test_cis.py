"""Section 5 of the CIS Docker benchmark (1.6: container runtime), asked of live sandboxes.

The numbers are those of docker-bench-security: its older list, from AppArmor to the socket, with the swarm in front.
`pytest -s tests/attack/test_cis.py` prints the table. An exception must be true too: once it holds, its reason is gone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import docker
import pytest

from sandbox_magic import Sandbox


@dataclass(frozen=True)
class Seen:
    """What the engine and the inside say of a sandbox: an inspection, its host part, the engine, execs, a shell."""

    facts: dict[str, Any]
    host: dict[str, Any]
    engine: dict[str, Any]
    execs: list[dict[str, Any]]
    run: Callable[[str], str]

    def has(self, module: str) -> bool:
        return any(f"name={module}" in option for option in self.engine["SecurityOptions"])


FIVE = {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}
CHECKS: dict[str, tuple[str, Callable[[Seen], bool]]] = {
    "5.1": ("no swarm", lambda s: s.engine["Swarm"]["LocalNodeState"] == "inactive"),
    "5.2": ("AppArmor, where there is one",
            lambda s: not s.has("apparmor") or s.facts["AppArmorProfile"] not in ("", "unconfined")),
    "5.3": ("SELinux, where there is one", lambda s: not s.has("selinux") or bool(s.facts["ProcessLabel"])),
    "5.4": ("few capabilities",
            lambda s: s.host["CapDrop"] == ["ALL"]
            and {name.removeprefix("CAP_") for name in s.host["CapAdd"] or ()} <= FIVE
            and int(s.run("grep CapBnd /proc/self/status").split()[1], 16) & ~0xCB == 0),
    "5.5": ("not privileged", lambda s: s.host["Privileged"] is False),
    "5.6": ("no folder of the host", lambda s: not any(mount["Type"] == "bind" for mount in s.facts["Mounts"])),
    "5.7": ("no sshd", lambda s: "sshd" not in s.run("cat /proc/[0-9]*/comm")),
    "5.8": ("no privileged port given away", lambda s: not s.host["PortBindings"]),
    "5.9": ("no port open", lambda s: not s.facts["NetworkSettings"]["Ports"]),
    "5.10": ("a network namespace of its own", lambda s: s.host["NetworkMode"] != "host"),
    "5.11": ("memory is limited", lambda s: 0 < s.host["Memory"] == s.host["MemorySwap"]),
    "5.12": ("processors are limited", lambda s: s.host["NanoCpus"] > 0),
    "5.13": ("the root is read-only",
             lambda s: s.host["ReadonlyRootfs"] and "Read-only" in s.run("touch /x /usr/x /etc/x 2>&1")),
    "5.14": ("no port on every interface", lambda s: not s.host["PortBindings"]),
    "5.15": ("started again at most five times", lambda s: s.host["RestartPolicy"]["Name"] in ("", "no")),
    "5.16": ("a process namespace of its own", lambda s: s.host["PidMode"] == ""),
    "5.17": ("an IPC namespace of its own", lambda s: s.host["IpcMode"] == "private"),
    "5.18": ("no device of the host", lambda s: not s.host["Devices"] and not s.host["DeviceRequests"]),
    "5.19": ("limits of a process are set", lambda s: {"nofile", "core"} <= {one["Name"] for one in s.host["Ulimits"]}),
    "5.20": ("no mount is shared",
             lambda s: not any(mount.get("Propagation") == "shared" for mount in s.facts["Mounts"])),
    "5.21": ("a name of its own", lambda s: s.host["UTSMode"] == "" and s.run("cat /etc/hostname") == "sandbox\n"),
    "5.22": ("a seccomp profile",
             lambda s: any(option.startswith("seccomp={") for option in s.host["SecurityOpt"])
             and s.run("grep Seccomp: /proc/self/status").split()[1] == "2"),
    "5.23": ("no privileged exec", lambda s: all(not one["ProcessConfig"]["privileged"] for one in s.execs)),
    "5.24": ("no exec as root", lambda s: all(one["ProcessConfig"]["user"] == "10001:10001" for one in s.execs)),
    "5.25": ("the engine's control group", lambda s: s.host["CgroupParent"] == ""),
    "5.26": ("no new privileges",
             lambda s: "no-new-privileges" in s.host["SecurityOpt"]
             and s.run("grep NoNewPrivs /proc/self/status").split()[1] == "1"),
    "5.27": ("a health check", lambda s: s.facts["Config"].get("Healthcheck") not in (None, {"Test": ["NONE"]})),
    "5.28": ("an image of the day", lambda s: False),  # nothing here could know
    "5.29": ("processes are limited", lambda s: s.host["PidsLimit"] > 0),
    "5.30": ("not on docker0", lambda s: not s.facts["NetworkSettings"]["Networks"]),
    "5.31": ("not told to use the host's users", lambda s: s.host["UsernsMode"] != "host"),
    "5.32": ("no socket of the engine",
             lambda s: s.run("find / -xdev -name '*.sock' 2>/dev/null; find /run /var/run -type s 2>/dev/null") == ""),
}  # fmt: skip
EXCEPTIONS = {
    ("standard", "5.13"): "apt, dpkg and pip write to the root; `sealed` has it read-only",
    ("standard", "5.24"): "apt and dpkg need root inside, which has five capabilities and no new privileges",
    ("sealed", "5.27"): "the process that holds a sandbox hears at once when it ends, and is all that would act on it",
    (
        "standard",
        "5.27",
    ): "the process that holds a sandbox hears at once when it ends, and is all that would act on it",
    ("sealed", "5.28"): "the user chooses the image; none is fetched anew behind their back",
    ("standard", "5.28"): "the user chooses the image; none is fetched anew behind their back",
}


@pytest.fixture(scope="module", params=["sealed", "standard"])
def seen(request: pytest.FixtureRequest) -> Iterator[tuple[str, Seen]]:
    client = docker.from_env()
    with Sandbox(engine="docker", profile=request.param) as box:
        box.run("true", check=True)
        assert box._machine is not None
        facts = client.api.inspect_container(box._machine.id)
        execs = [client.api.exec_inspect(ident) for ident in facts["ExecIDs"]]
        assert execs, "the session is an exec"
        yield (
            request.param,
            Seen(facts, facts["HostConfig"], client.info(), execs, lambda code: box.run(code).output),
        )
    client.close()


def test_each_check_passes_or_has_a_reason(seen: tuple[str, Seen]) -> None:
    profile, sandbox = seen
    wrong = []
    lines = ["", f"CIS Docker benchmark 1.6, section 5, on a live `{profile}` sandbox"]
    for number, (what, check) in CHECKS.items():
        passed, reason = check(sandbox), EXCEPTIONS.get((profile, number), "")
        lines.append(f"  {number:5} {what:34} {'pass' if passed else f'exception: {reason}' if reason else 'FAIL'}")
        if passed == bool(reason):
            wrong.append(f"{number} {what}")
    sys.stdout.write("\n".join(lines) + "\n")
    assert not wrong
    assert len(CHECKS) == 32
