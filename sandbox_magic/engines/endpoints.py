"""Where a Docker Engine or a Podman may answer, in the order in which their commands look."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sandbox_magic.engines.ssh import Tunnel
from sandbox_magic.errors import EngineUnavailable

if TYPE_CHECKING:
    from docker import DockerClient

_REQUEST_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place to look.

    Attributes:
        origin: What named it: an argument, an environment variable, a context, or the default.
        url: The address.
        context: The context that also brings its certificates.
    """

    origin: str
    url: str
    context: str = ""

    @property
    def remote(self) -> bool:
        """Whether it may be on another machine, so that a lost link may go unnoticed."""
        return not self.url.startswith(("unix://", "http+unix://", "npipe://"))


@dataclass(frozen=True, slots=True)
class Connection:
    """An engine that has answered.

    Attributes:
        client: The SDK's client.
        endpoint: Where it was found.
        tunnel: What brings its socket here, if something does.
    """

    client: DockerClient
    endpoint: Endpoint
    tunnel: Tunnel | None = None

    @property
    def lost(self) -> bool:
        """Whether only a new connection can reach it again."""
        return self.tunnel is not None and not self.tunnel.alive()

    def close(self) -> None:
        """Give it up."""
        self.client.close()
        if self.tunnel is not None:
            self.tunnel.close()


def _named(docker_host: str | None, variable: str) -> Endpoint | None:
    """Return the place that the user named, in the wish or else in the environment."""
    if docker_host:
        return Endpoint("docker_host=", docker_host)
    url = os.environ.get(variable)
    return Endpoint(variable, url) if url else None


def docker_places(docker_host: str | None) -> Iterator[Endpoint]:
    """Yield the places of a Docker Engine; one that the user named stands alone: another is not what was asked for."""
    if (named := _named(docker_host, "DOCKER_HOST")) is not None:
        yield named
        return
    # The SDK is heavy. The package first, as everywhere: two threads that enter such a circle of imports at different
    # places, as a cell and the sweep do, meet half-made modules.
    import docker  # noqa: F401, PLC0415
    from docker.context import ContextAPI  # noqa: PLC0415

    default = "unix:///var/run/docker.sock"
    name = os.environ.get("DOCKER_CONTEXT")
    try:
        context = ContextAPI.get_context(name)
    except Exception:  # noqa: BLE001 # an unreadable docker configuration must not stop the default
        context = None
    if name and context is None:
        raise EngineUnavailable(f"DOCKER_CONTEXT names {name!r}, and there is no such docker context")
    if context is not None and context.Host and context.Host not in (default, "http+unix:///var/run/docker.sock"):
        yield Endpoint(f"context {context.Name!r}", context.Host, context.Name)
    yield Endpoint("default socket", default)


def podman_places(docker_host: str | None) -> Iterator[Endpoint]:
    """Yield the places of a Podman; one that the user named stands alone."""
    if (named := _named(docker_host, "CONTAINER_HOST")) is not None:
        yield named
        return
    if os.environ.get("DOCKER_HOST"):
        yield Endpoint("DOCKER_HOST", os.environ["DOCKER_HOST"])
    if os.environ.get("XDG_RUNTIME_DIR"):
        yield Endpoint("rootless socket", f"unix://{os.environ['XDG_RUNTIME_DIR']}/podman/podman.sock")
    yield Endpoint("default socket", "unix:///run/podman/podman.sock")


def first(places: Iterable[Endpoint], *, podman: bool) -> Connection:
    """Return a connection to the first of these places that answers.

    Args:
        places: Where to look.
        podman: Whether a Podman is looked for; what only looks like the other one counts as no answer.

    Raises:
        EngineUnavailable: None does; the sentence lists each with its reason and says what to do.
    """
    tried = []
    for endpoint in places:
        try:
            connection = _connect(endpoint, podman=podman)
        except Exception as error:  # noqa: BLE001 # whatever an endpoint's library raises is that endpoint's reason
            tried.append(f"  {endpoint.origin}: {endpoint.url}: {_reason(error)}")
        else:
            return connection
    head, advice = _PODMAN if podman else _DOCKER
    raise EngineUnavailable("\n".join((head, *tried, advice)))


_DOCKER = (
    "no Docker Engine answers. Tried:",
    "Start it (Debian and Ubuntu: apt-get install docker.io, then `service docker start`; a desktop: start Docker "
    "Desktop), or name another one with DOCKER_HOST or docker_host=. `sandbox-magic doctor` tells more.",
)
_PODMAN = (
    "no Podman answers. Tried:",
    "Start its service (`systemctl --user start podman.socket`, as root without --user; without systemd: "
    "`podman system service --time=0`), or name another one with CONTAINER_HOST or docker_host=.",
)


def _connect(endpoint: Endpoint, *, podman: bool) -> Connection:
    if not endpoint.url.startswith("ssh://"):
        connection = Connection(_client(endpoint, endpoint.url), endpoint)
    else:
        tunnel = Tunnel(endpoint.url, "/run/podman/podman.sock" if podman else "/var/run/docker.sock")
        try:
            connection = Connection(_client(endpoint, f"unix://{tunnel.path}"), endpoint, tunnel)
        except BaseException:
            tunnel.close()
            raise
    try:
        components = connection.client.version().get("Components") or ()
        if podman != any("Podman" in component.get("Name", "") for component in components):
            what, engine = ("a Docker Engine", "docker") if podman else ("Podman", "podman")
            raise EngineUnavailable(f"this is {what}: engine={engine!r}")
    except BaseException:
        connection.close()
        raise
    return connection


def _client(endpoint: Endpoint, url: str) -> DockerClient:
    import docker  # noqa: PLC0415 # 100 ms, and only needed with a Docker engine

    class Alone(docker.tls.TLSConfig):
        """Certificates that no setting for other servers overrides: requests prefers REQUESTS_CA_BUNDLE to ours."""

        def configure_client(self, client: Any) -> None:
            super().configure_client(client)
            client.trust_env = False

    tls = None
    if endpoint.context:
        from docker.context import ContextAPI  # noqa: PLC0415

        known = ContextAPI.get_context(endpoint.context).TLSConfig
        tls = known and Alone(client_cert=known.cert, ca_cert=known.ca_cert, verify=known.verify)
    elif _wants_tls() and endpoint.url.startswith("tcp://"):
        folder = os.environ.get("DOCKER_CERT_PATH") or os.path.expanduser("~/.docker")  # noqa: PTH111
        tls = Alone(
            client_cert=(f"{folder}/cert.pem", f"{folder}/key.pem"),
            ca_cert=f"{folder}/ca.pem",
            verify=True,  # whoever is not verified may be anybody, and would get our code and data
        )
    return docker.DockerClient(base_url=url, version="auto", timeout=_REQUEST_SECONDS, tls=tls or False)


def _wants_tls() -> bool:
    return bool(os.environ.get("DOCKER_TLS_VERIFY") or os.environ.get("DOCKER_CERT_PATH"))


def _reason(error: BaseException) -> str:
    """Return the innermost cause in one line; client libraries wrap it three times."""
    if isinstance(error, EngineUnavailable):
        return str(error)
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    text = " ".join(str(error).split()) or type(error).__name__
    if "No such file or directory" in text:
        return "there is no such socket"
    if "Permission denied" in text:
        return "permission denied: is this user in the group that it belongs to (Docker's: docker)?"
    return text[:200]
