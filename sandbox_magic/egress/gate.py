"""`Gate`: decides who may be reached, connects, and keeps the log."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from sandbox_magic.destinations import Destination, canonical
from sandbox_magic.egress.addresses import refusal
from sandbox_magic.transport import close_in_child

LOGGED = 1000  # decisions; older ones are dropped
_CONNECT_SECONDS = 10.0  # for each address
_ADDRESSES = 3  # of one name are tried

Resolver = Callable[[str, int], list[str]]


@dataclass(slots=True)
class Access:
    """One line of the log: what a sandbox wanted to reach, and what became of it.

    Attributes:
        time: When, in seconds since 1970.
        name: The name, or what was given instead of one.
        port: 0 if there was none.
        allowed: Whether it was connected.
        reason: Why not, or by which rule.
        address: Where to.
        sent: Bytes so far, from the sandbox.
        received: Bytes so far, for the sandbox.
    """

    time: float
    name: str
    port: int
    allowed: bool = False
    reason: str = ""
    address: str = ""
    sent: int = 0
    received: int = 0


class Refused(Exception):
    """It was not connected, for the reason that is the text.

    Attributes:
        status: What HTTP calls it.
    """

    def __init__(self, reason: str, status: int = 403) -> None:
        super().__init__(reason)
        self.status = status


def resolve(name: str, port: int) -> list[str]:
    """Return the addresses of a name, as this machine's resolver says."""
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Gate:
    """The rules of one sandbox. Thread-safe.

    Attributes:
        online: Whether every public name is allowed, because the sandbox is online as a whole.
    """

    def __init__(
        self, allowed: Iterable[Destination] = (), *, online: bool = False, resolver: Resolver = resolve
    ) -> None:
        """Make the rules; `resolver` is asked once for each connection."""
        self.online = online
        self._allowed = tuple(allowed)
        self._denied: tuple[Destination, ...] = ()
        self._extra: tuple[Destination, ...] = ()
        self._resolve = resolver
        self._log: deque[Access] = deque(maxlen=LOGGED)
        self._live: dict[int, tuple[Access, socket.socket]] = {}
        self._lock = threading.Lock()

    # ---- rules

    @property
    def allowed(self) -> tuple[Destination, ...]:
        """What is allowed until told otherwise."""
        return self._allowed

    def allow(self, more: Iterable[Destination]) -> None:
        """Allow these too."""
        more = tuple(more)
        self._denied = tuple(entry for entry in self._denied if entry not in more)
        self._allowed = tuple(dict.fromkeys((*self._allowed, *more)))

    def deny(self, less: Iterable[Destination]) -> None:
        """Allow these no more, also where another rule covers them; what is connected is cut."""
        less = tuple(less)
        self._allowed = tuple(entry for entry in self._allowed if entry not in less)
        self._denied = tuple(dict.fromkeys((*self._denied, *less)))
        self.cut()

    def for_now(self, extra: Iterable[Destination], *, online: bool) -> None:
        """Allow these beside the others until this is called again; what is then not allowed any more is cut."""
        self._extra = tuple(extra)
        self.online = online
        self.cut()

    def hang_up(self) -> None:
        """End all connections."""
        with self._lock:
            live = list(self._live.values())
        for _, sock in live:
            _shut(sock)

    def cut(self) -> None:
        """End the connections that the present rules do not allow."""
        with self._lock:
            live = list(self._live.values())
        for access, sock in live:
            try:
                self._rule(access.name, access.port)
            except Refused as refused:
                access.reason = f"cut: {refused}"
                _shut(sock)

    def _rule(self, name: str, port: int) -> Destination:
        for denied in self._denied:
            if denied.names(name) and denied.port in (None, port):
                raise Refused(f"{denied} is denied")
        rules = (*self._allowed, *self._extra)
        for rule in rules:
            if rule.covers(name, port):
                return rule
        if self.online:
            return Destination("*", port)
        if any(rule.names(name) for rule in rules):
            raise Refused(f"its port {port} is not allowed")
        raise Refused("it is not among the names that this sandbox may reach")

    # ---- connections

    def connect(self, host: str, port: int) -> tuple[socket.socket, Access]:
        """Connect to what a sandbox has named.

        Raises:
            Refused: By the rules, or nothing answers; it is in the log.
        """
        access = self.note(host, port)
        try:
            name = canonical(host)
            if not name:
                raise Refused("it is an address, not a name" if _is_address(host) else "it is not a host name")
            access.name = name
            rule = self._rule(name, port)
            access.reason = f"allowed by {rule}"
            sock = self._connect(access, [rule.address] if rule.address else self._public(name, port))
            self._keep(access, sock)
        except Refused as refused:
            access.reason = str(refused)
            raise
        return sock, access

    def greet(self, access: Access, name: str) -> None:
        """Let a connection ask its server for this name, as TLS does before it encrypts.

        Raises:
            Refused: The name is not allowed; it is in the log.
        """
        try:
            if not canonical(name):
                raise Refused("it is not a host name")
            self._rule(canonical(name), access.port)
        except Refused as refused:
            access.allowed, access.reason = False, f"cut: TLS asks there for {name[:253]!r}: {refused}"
            raise

    def _keep(self, access: Access, sock: socket.socket) -> None:
        access.allowed = True
        with self._lock:
            self._live[sock.fileno()] = access, sock
        try:
            self._rule(access.name, access.port)  # denied while we connected, `cut` has not seen it
        except Refused:
            access.allowed = False
            self.release(sock)
            raise

    def release(self, sock: socket.socket) -> None:
        """Close a connection."""
        with self._lock:
            self._live.pop(sock.fileno(), None)
        sock.close()

    def _public(self, name: str, port: int) -> list[str]:
        """Return the addresses to connect to: these very ones were looked at, so a second answer changes nothing."""
        answers = self._resolve(name, port)
        if not answers:
            raise Refused("the name has no address", 502)
        refusals = {address: refusal(address) for address in answers}
        public = [address for address, reason in refusals.items() if not reason]
        if not public:
            address, reason = next(iter(refusals.items()))
            raise Refused(f"its address {address} is {reason}; to allow it, write {name}@{address}")
        return public

    def _connect(self, access: Access, addresses: list[str]) -> socket.socket:
        said: OSError | None = None
        for address in addresses[:_ADDRESSES]:
            access.address = address
            try:
                sock = socket.create_connection((address, access.port), timeout=_CONNECT_SECONDS)
            except OSError as error:
                said = error
                continue
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what comes in pieces is passed on in pieces
            return close_in_child(sock)
        raise Refused(f"{access.address} does not answer: {said}", 504 if isinstance(said, TimeoutError) else 502)

    # ---- the log

    def note(self, host: str, port: int, reason: str = "") -> Access:
        """Write a line that allows nothing."""
        access = Access(time.time(), host[:253], port, reason=reason[:300])
        self._log.append(access)
        return access

    def log(self) -> tuple[Access, ...]:
        """Return the decisions, the latest last."""
        return tuple(replace(access) for access in list(self._log))


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has ended by itself
        sock.shutdown(socket.SHUT_RDWR)


def _is_address(host: str) -> bool:
    """Whether some program would take this for an address: dotted, whole, octal, hexadecimal, IPv6."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host.strip("[]").partition("%")[0])
        return True
    with contextlib.suppress(OSError, ValueError, UnicodeError):
        socket.inet_aton(host)
        return True
    return False
