"""`Network`: the network of one sandbox, on and off as a whole, and by name."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping

from sandbox_magic.destinations import Destination, destinations
from sandbox_magic.egress.gate import Gate
from sandbox_magic.egress.relay import PORT, Relay
from sandbox_magic.engines.base import NETWORK_SWITCH, Machine, Progress
from sandbox_magic.errors import InvalidOptions, SandboxError
from sandbox_magic.spec import SandboxSpec

_PROXY = f"http://127.0.0.1:{PORT}"
# What common programs look at, in both spellings: curl wants the first one small, others want all of them large.
ENVIRONMENT = {
    name: value
    for low, value in (
        ("http_proxy", _PROXY),
        ("https_proxy", _PROXY),
        ("all_proxy", _PROXY),
        ("no_proxy", "localhost,127.0.0.1,::1"),
    )
    for name in (low, low.upper())
}

_NO_SWITCH = (
    "this sandbox has no network to switch: name what it may reach (--network=NAME, network=['packages.example.org']), "
    "or use engine='docker' for one that goes online; gVisor has the network that it starts with (network=True), or "
    "none (runtime='runc' can be switched)"
)

Wish = bool | str | Iterable[str | Destination]  # all of it or none, or the names


class Network:
    """Steers it.

    Attributes:
        online: Whether the sandbox as a whole is on the network.
        gate: Who may be reached by name.
    """

    def __init__(self, spec: SandboxSpec, progress: Progress, note: Callable[[str], object]) -> None:
        """Make it; `note` is called with what the next result shall say."""
        self.online = spec.online
        self.gate = Gate(() if isinstance(spec.network, bool) else spec.network, online=spec.online)
        self._progress = progress
        self._note = note
        self._lock = threading.Lock()
        self._used = bool(self.gate.allowed)  # whether the sandbox's programs are told of the proxy
        self._untold = False  # and the shell that runs already has not been
        self._relay: Relay | None = None

    @property
    def wish(self) -> bool | tuple[Destination, ...]:
        """What the spec of a new machine must say."""
        return self.online or self.gate.allowed

    @property
    def env(self) -> Mapping[str, str]:
        """What a new session must have in its environment."""
        return ENVIRONMENT if self._used else {}

    def facts(self) -> Mapping[str, object]:
        """Return what a user wants to know of it."""
        return {"may reach": [str(name) for name in self.gate.allowed]} if self.gate.allowed else {}

    def begin(self, machine: Machine) -> None:
        """Open the way to the proxy of a new machine, if it shall have one."""
        self._untold = False
        if self._used:
            self._open(machine)

    def end(self) -> None:
        """Close it."""
        relay, self._relay = self._relay, None
        if relay is not None:
            relay.close()
            self.gate.hang_up()

    def switch(self, machine: Machine, online: bool) -> None:
        """Put the machine on the network, or take it off, until told otherwise; where it is so for good, that is it."""
        if online != self.online or NETWORK_SWITCH in machine.capabilities:
            self._connect(machine, online)
        self.online = online
        self.gate.for_now((), online=online)

    def allow(self, machine: Machine, names: Wish) -> None:
        """Allow names until told otherwise."""
        more = _names(names)
        self._open(machine)
        self.gate.allow(more)

    def deny(self, names: Wish) -> None:
        """Allow names no more."""
        self.gate.deny(_names(names))

    def during(
        self, machine: Machine, wish: Wish, ended: Callable[[], bool]
    ) -> contextlib.AbstractContextManager[Mapping[str, str]]:
        """Allow what one run asks for, give what it must export, and take the permission back.

        Args:
            machine: Where it runs.
            wish: What it asks for.
            ended: Whether the machine has ended with it.
        """
        usual = wish is False and not self._used and not self._untold
        return contextlib.nullcontext({}) if usual else self._during(machine, wish, ended)

    @contextlib.contextmanager
    def _during(self, machine: Machine, wish: Wish, ended: Callable[[], bool]) -> Iterator[Mapping[str, str]]:
        extra = () if isinstance(wish, bool) else destinations(wish)
        switch = wish is True and not self.online
        if extra:
            self._open(machine)
        elif self._used:
            try:
                self._open(machine)
            except SandboxError as error:  # something inside has ended it and holds its port: the cell runs without
                self._note(str(error))
        if switch:
            self._connect(machine, True)
        self.gate.for_now(extra, online=self.online or switch)
        env = ENVIRONMENT if self._untold else {}
        self._untold = False
        try:
            yield env
        finally:
            self.gate.for_now((), online=self.online)
            if switch and not ended():
                self._connect(machine, False)

    def _open(self, machine: Machine) -> None:
        """Open the way to the proxy, if it is not open."""
        from sandbox_magic.egress.proxy import serve  # noqa: PLC0415 # brings the parser in, for those who need it

        with self._lock:
            if self._relay is not None and self._relay.alive:
                return
            self.end()
            self._progress("opening the way to what was named")
            self._relay = Relay(machine, lambda client: serve(client, self.gate))
            self._progress("")
            self._untold |= not self._used
            self._used = True

    def _connect(self, machine: Machine, online: bool) -> None:
        if NETWORK_SWITCH not in machine.capabilities:
            raise InvalidOptions(_NO_SWITCH)
        self._progress("connecting the network" if online else "")
        machine.network(online)
        self._progress("")


def _names(wish: Wish) -> tuple[Destination, ...]:
    found = () if isinstance(wish, bool) else destinations(wish)
    if not found:
        raise InvalidOptions("network: name what shall be reached, such as packages.example.org or *.example.net:443")
    return found
