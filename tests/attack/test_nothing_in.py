"""What of this machine, of the notebook and of other sandboxes can be found from inside: everything is searched."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from canaries import Canary
from tries import ABSENT, DENIED, OFFLINE, Breach, Try, Where, each, everywhere, perl

from sandbox_magic import Sandbox

# All that a process may look at. In a bubblewrap sandbox /usr is this machine's, shown on purpose, and large.
SEARCH = "grep -rslF -D skip --exclude-dir=proc --exclude-dir=sys {more} -e {word} / 2>/dev/null"
NAMES = "find / -path /proc -prune -o {skip} -name '*{word}*' -print 2>/dev/null"
PROCESSES = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline /proc/[0-9]*/mountinfo /proc/[0-9]*/maps 2>/dev/null"
SOCKETS = "cat /proc/net/unix /proc/[0-9]*/net/unix 2>/dev/null"
ENGINES = (
    "/var/run/docker.sock", "/run/docker.sock", "/run/podman/podman.sock", "/run/containerd/containerd.sock",
    "/var/run/docker/containerd/containerd.sock", "/run/crio/crio.sock", "/run/user/0/docker.sock",
    "/run/user/0/podman/podman.sock", "/host/var/run/docker.sock", "/var/run/cri-dockerd.sock",
)  # fmt: skip
TOKENS = "/var/run/secrets/kubernetes.io/serviceaccount/token"


def search(box: Sandbox, word: str, command: str) -> str:
    """Return what the command finds of this word; the word is not in the command, which could be found itself."""
    half = len(word) // 2
    ours = box.spec.engine != "bubblewrap"
    more, skip = ("", "") if ours else ("--exclude-dir=usr", "-path /usr -prune -o")
    script = command.format(word='"$word"', more=more, skip=skip).replace("'*\"$word\"*'", '"*$word*"')
    return box.run(f"word={word[:half]}; word=${{word}}{word[half:]}; {script}", timeout=90).stdout


@pytest.mark.attack("secrets", "search the contents of all files for a secret of a home folder")
@everywhere()
def test_no_file_holds_a_secret(inside: Sandbox, canary: Canary) -> None:
    inside.run("echo sought-for >/tmp/control")
    assert search(inside, "sought-for", SEARCH) == "/tmp/control\n", "the search does not find what is there"
    if found := search(inside, canary.word, SEARCH):
        raise Breach(found)


@pytest.mark.attack("secrets", "search all names of files for a folder of this machine")
@everywhere()
def test_no_name_is_that_of_a_secret(inside: Sandbox, canary: Canary) -> None:
    inside.run(">/tmp/sought-for")
    assert search(inside, "sought-for", NAMES) == "/tmp/sought-for\n", "the search does not find what is there"
    if found := search(inside, canary.word, NAMES):
        raise Breach(found)


@pytest.mark.attack("secrets", "the proxies of the user's Docker configuration, with their passwords")
@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_no_proxy_is_told(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK would put them into the environment of whatever it makes, as the docker command does."""
    proxy = "http://user:sought-for@proxy.example:3128"
    (tmp_path / "config.json").write_text(json.dumps({"proxies": {"default": {"httpProxy": proxy}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with Sandbox(engine=engine) as box:
        if found := box.run("env; cat /proc/1/environ | tr '\\0' '\\n'").stdout.count("sought-for"):
            raise Breach(found)


@pytest.mark.attack("secrets", "search environment, arguments and mounts of all processes")
@everywhere()
def test_no_process_holds_a_secret(inside: Sandbox, canary: Canary) -> None:
    inside.run("(sought=for sleep 20) >/dev/null 2>&1 &")
    look = inside.run(f"sought=for sh -c {shlex.quote(PROCESSES)} | tr '\\000' '\\n'").stdout
    assert "sought=for" in look, "the search does not find what is there"
    if canary.word in look:
        raise Breach(look)


@pytest.mark.attack("secrets", "read a secret by its path, directly and by way of every process's root")
@everywhere()
def test_no_path_leads_to_a_secret(inside: Sandbox, canary: Canary) -> None:
    starts = ("", "/host", "/mnt", "/proc/1/root", "/proc/self/root", "/proc/[0-9]*/root", "/proc/[0-9]*/cwd/../../..")
    files = " ".join(f"{start}{file}" for start in starts for file in canary.files)
    if found := inside.run(f"cat {files} 2>/dev/null").stdout:
        raise Breach(found)


@pytest.mark.attack("secrets", "read a secret by way of a folder that was left open (as CVE-2024-21626)")
@everywhere()
def test_no_open_folder_leads_out(inside: Sandbox, canary: Canary) -> None:
    up = "../" * 12
    code = f"for f in /proc/[0-9]*/fd/*; do cat $f/{up}{canary.files[0]} 2>/dev/null; done"
    if canary.word in (found := inside.run(code).stdout):
        raise Breach(found)


@pytest.mark.attack("secrets", "find this machine's name, users and addresses")
@everywhere()
def test_the_machine_is_not_told(inside: Sandbox) -> None:
    told = inside.run("cat /etc/hostname /etc/hosts /etc/passwd /proc/sys/kernel/hostname; hostname; env; set").stdout
    users = {line.split(":")[5] for line in Path("/etc/passwd").read_text().splitlines() if "/home/" in line}
    words = {socket.gethostname(), *users} - {"localhost", "sandbox"}
    if found := [word for word in words if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", told)]:
        raise Breach(found)


@each([
    *(Try("engine sockets", f"connect to {path}", perl(
        f'socket(S, AF_UNIX, SOCK_STREAM, 0) or die $!; connect(S, pack_sockaddr_un("{path}")) or die $!'),
        f"{DENIED}|{ABSENT}") for path in ENGINES),
    Try("engine sockets", "find any socket that is not the sandbox's own",
        "found=$(find / -path /proc -prune -o -type s -print 2>/dev/null); [ -n \"$found\" ]", ""),
    Try("engine sockets", "use the account of a cluster", f"cat {TOKENS}", ABSENT),
    *(Try("engine sockets", f"the engine by TCP, at {address}:{port}", perl(
        f'socket(S, AF_INET, SOCK_STREAM, 0) or die $!; alarm 5; connect(S, pack_sockaddr_in({port}, '
        f'inet_aton("{address}"))) or die $!'), OFFLINE, without=frozenset({"open"}))
      for address in ("127.0.0.1", "172.17.0.1") for port in (2375, 2376)),
])  # fmt: skip
def test_no_engine_is_reached(inside: Sandbox, where: Where, attempt: Try) -> None:
    attempt.run(inside)


ONLINE = frozenset({"open"})  # has a network on purpose
INTERNET = (
    'socket(S, AF_INET, SOCK_STREAM, 0) or die $!; alarm 5; connect(S, pack_sockaddr_in({}, inet_aton("{}"))) or die $!'
)


@each([
    *(Try("network", f"connect to {what}", perl(INTERNET.format(port, address)), OFFLINE, without=ONLINE)
      for what, port, address in (
          ("the internet", 443, "1.1.1.1"), ("a name server", 53, "8.8.8.8"),
          ("the cloud's metadata", 80, "169.254.169.254"),
          ("the cloud's metadata, by another address", 80, "169.254.170.2"),
          ("the engine's gateway", 80, "172.17.0.1"), ("a private network", 80, "10.0.0.1"),
          ("a home network", 80, "192.168.1.1"))),
    Try("network", "connect by IPv6", perl(
        'socket(S, AF_INET6, SOCK_STREAM, 0) or die $!; alarm 5; connect(S, pack_sockaddr_in6(443, '
        'Socket::inet_pton(AF_INET6, "2606:4700:4700::1111"))) or die $!'), f"{OFFLINE}|not supported", without=ONLINE),
    Try("network", "send a question to a name server", perl(
        'socket(S, AF_INET, SOCK_DGRAM, 0) or die $!; '
        'send(S, "x", 0, pack_sockaddr_in(53, inet_aton("8.8.8.8"))) or die $!'),
        OFFLINE, without=ONLINE),
    Try("network", "look up a name", "getent hosts example.com || { echo no resolution >&2; false; }", OFFLINE,
        without=ONLINE),
    Try("network", "find an interface beside lo",
        "grep -v '^ *lo:' /proc/net/dev | grep -q : || { echo unreachable >&2; false; }", OFFLINE,
        without=ONLINE),
    Try("network", "a raw socket", perl("socket(S, AF_INET, SOCK_RAW, 1) or die $!")),
    Try("network", "a packet socket", perl("socket(S, 17, SOCK_RAW, 768) or die $!"), f"{DENIED}|not supported"),
    Try("network", "a socket to the host of a virtual machine", perl("socket(S, 40, SOCK_STREAM, 0) or die $!; "
        "connect(S, pack(\"SSIIx4\", 40, 0, 22, 2)) or die $!"), f"{DENIED}|not supported|{ABSENT}|{OFFLINE}|reset"),
    Try("network", "change an interface", perl(
        'socket(S, AF_INET, SOCK_DGRAM, 0) or die $!; $r = pack("a16sx22", "lo", 0); ioctl(S, 0x8914, $r) or die $!')),
    Try("network", "a route of its own", perl(
        'socket(S, AF_INET, SOCK_DGRAM, 0) or die $!; $r = "\\0" x 120; ioctl(S, 0x890B, $r) or die $!')),
])  # fmt: skip
def test_no_network(inside: Sandbox, where: Where, attempt: Try) -> None:
    attempt.run(inside)


def connects(run: Callable[[str], str], place: str, family: str) -> bool:
    """Whether perl reaches this place; `run` says where it runs."""
    said = run(perl(f"socket(S, {family}, SOCK_STREAM, 0); alarm 5; print connect(S, {place}) ? 1 : 0, q(.)"))
    assert said in {"1.", "0."}, said
    return said == "1."


def on_this_machine(code: str) -> str:
    return subprocess.run(["sh", "-c", code], capture_output=True, text=True, check=True).stdout


SERVICES = {
    "loopback": ('pack_sockaddr_in({loopback}, inet_aton("127.0.0.1"))', "AF_INET"),
    "all addresses": ('pack_sockaddr_in({port}, inet_aton("127.0.0.1"))', "AF_INET"),
    "bridge": ('pack_sockaddr_in({port}, inet_aton("172.17.0.1"))', "AF_INET"),
    "abstract": ('pack_sockaddr_un("\\0{word}")', "AF_UNIX"),
    "socket file": ('pack_sockaddr_un("{agent}")', "AF_UNIX"),
}


def no_service(box: Sandbox, canary: Canary, what: str) -> None:
    form, family = SERVICES[what]
    place = form.format(loopback=canary.loopback, port=canary.port, word=canary.word, agent=canary.agent)
    assert connects(on_this_machine, place, family) or what == "bridge", "nobody listens"
    if connects(lambda code: box.run(code).stdout, place, family):
        raise Breach(place)


@pytest.mark.attack("network", "connect to services of this machine: loopback, bridge, abstract and file sockets")
@everywhere("open")
@pytest.mark.parametrize("what", SERVICES)
def test_services_of_this_machine(inside: Sandbox, canary: Canary, what: str) -> None:
    no_service(inside, canary, what)


@pytest.mark.attack("network", "connect to loopback, abstract and file sockets of this machine although online")
@everywhere("sealed", "standard")
@pytest.mark.parametrize("what", ["loopback", "abstract", "socket file"])
def test_services_of_this_machine_when_online(inside: Sandbox, canary: Canary, what: str) -> None:
    no_service(inside, canary, what)


@pytest.mark.attack("other sandboxes", "read what another one has written: /tmp, /var/tmp, /work, /dev/shm, /run")
@everywhere()
def test_no_file_of_another(inside: Sandbox, neighbour: Sandbox) -> None:
    look = "cat /tmp/neighbours /var/tmp/neighbours /work/neighbours /dev/shm/neighbours /run/neighbours 2>/dev/null"
    assert "neighbours" in neighbour.run(look).stdout
    if found := inside.run(look).stdout:
        raise Breach(found)


@pytest.mark.attack("other sandboxes", "see or signal a process of another one")
@everywhere()
def test_no_process_of_another(inside: Sandbox, neighbour: Sandbox) -> None:
    look = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\000' '\\n' | grep -x neighbours-[p]rocess"
    assert neighbour.run(look).stdout
    if found := inside.run(look).stdout:
        raise Breach(found)


@pytest.mark.attack("other sandboxes", "System V shared memory, messages and semaphores of another one")
@everywhere()
def test_no_memory_of_another(inside: Sandbox, neighbour: Sandbox) -> None:
    make = perl("for (4242) { shmget($_, 64, 01666) // die; msgget($_, 01666) // die; semget($_, 1, 01666) // die }")
    look = perl(
        "for (4242) { print defined(shmget($_, 0, 0)), defined(msgget($_, 0)), defined(semget($_, 0, 0)), q(.) }"
    )
    neighbour.run(make, check=True)
    assert neighbour.run(look).stdout == "111."
    if (found := inside.run(look).stdout) != ".":
        raise Breach(found)


@pytest.mark.attack("other sandboxes", "connect to another one's abstract socket and loopback port")
@everywhere()
def test_no_socket_of_another(inside: Sandbox, neighbour: Sandbox) -> None:
    abstract = ('pack_sockaddr_un("\\0neighbours")', "AF_UNIX")
    port = ('pack_sockaddr_in(4243, inet_aton("127.0.0.1"))', "AF_INET")
    for place, family in [abstract, port]:
        listen = f"socket(S, {family}, SOCK_STREAM, 0); setsockopt(S, 1, 2, 1); bind(S, {place}); listen(S, 9); "
        neighbour.run(perl(f"{listen} fork and exit; close STDIN; close STDOUT; close STDERR; sleep 100"), check=True)
        assert connects(lambda code: neighbour.run(code).stdout, place, family)
        if connects(lambda code: inside.run(code).stdout, place, family):
            raise Breach(place)
