"""Where a Docker Engine or a Podman may answer, in the order in which their commands look."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

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


def docker_places(docker_host: str | None) -> Iterator[Endpoint]:
    """Yield the places of a Docker Engine; one that the user named stands alone: another is not what was asked for."""
    if docker_host:
        yield Endpoint("docker_host=", docker_host)
        return
    if os.environ.get("DOCKER_HOST"):
        yield Endpoint("DOCKER_HOST", os.environ["DOCKER_HOST"])
        return
    from docker.context import ContextAPI  # noqa: PLC0415 # the SDK is heavy

    default = "unix:///var/run/docker.sock"
    try:
        context = ContextAPI.get_current_context()
    except Exception:  # noqa: BLE001 # an unreadable docker configuration must not stop the default
        context = None
    if context is not None and context.Host and context.Host not in (default, "http+unix:///var/run/docker.sock"):
        yield Endpoint(f"context {context.Name!r}", context.Host, context.Name)
    yield Endpoint("default socket", default)


def podman_places(docker_host: str | None) -> Iterator[Endpoint]:
    """Yield the places of a Podman; one that the user named stands alone."""
    if docker_host:
        yield Endpoint("docker_host=", docker_host)
        return
    if os.environ.get("CONTAINER_HOST"):
        yield Endpoint("CONTAINER_HOST", os.environ["CONTAINER_HOST"])
        return
    if os.environ.get("DOCKER_HOST"):
        yield Endpoint("DOCKER_HOST", os.environ["DOCKER_HOST"])
    if os.environ.get("XDG_RUNTIME_DIR"):
        yield Endpoint("rootless socket", f"unix://{os.environ['XDG_RUNTIME_DIR']}/podman/podman.sock")
    yield Endpoint("default socket", "unix:///run/podman/podman.sock")


def first(places: Iterable[Endpoint], *, podman: bool) -> tuple[DockerClient, Endpoint]:
    """Return a client of the first of these places that answers.

    Args:
        places: Where to look.
        podman: Whether a Podman is looked for; what only looks like the other one counts as no answer.

    Raises:
        EngineUnavailable: None does; the sentence lists each with its reason and says what to do.
    """
    tried = []
    for endpoint in places:
        try:
            client = _client(endpoint)
            components = client.version().get("Components") or ()
        except Exception as error:  # noqa: BLE001 # whatever an endpoint's library raises is that endpoint's reason
            tried.append(f"  {endpoint.origin}: {endpoint.url}: {_reason(error)}")
            continue
        if podman == any("Podman" in component.get("Name", "") for component in components):
            return client, endpoint
        client.close()
        there = "this is a Docker Engine: engine='docker'" if podman else "this is Podman: engine='podman'"
        tried.append(f"  {endpoint.origin}: {endpoint.url}: {there}")
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


def _client(endpoint: Endpoint) -> DockerClient:
    import docker  # noqa: PLC0415 # 100 ms, and only needed with a Docker engine

    tls = None
    if endpoint.context:
        from docker.context import ContextAPI  # noqa: PLC0415

        tls = ContextAPI.get_context(endpoint.context).TLSConfig
    elif _wants_tls() and endpoint.url.startswith("tcp://"):
        folder = os.environ.get("DOCKER_CERT_PATH") or os.path.expanduser("~/.docker")  # noqa: PTH111
        tls = docker.tls.TLSConfig(
            client_cert=(f"{folder}/cert.pem", f"{folder}/key.pem"),
            ca_cert=f"{folder}/ca.pem",
            verify=bool(os.environ.get("DOCKER_TLS_VERIFY")),
        )
    return docker.DockerClient(base_url=endpoint.url, version="auto", timeout=_REQUEST_SECONDS, tls=tls or False)


def _wants_tls() -> bool:
    return bool(os.environ.get("DOCKER_TLS_VERIFY") or os.environ.get("DOCKER_CERT_PATH"))


def _reason(error: BaseException) -> str:
    """Return the innermost cause in one line; client libraries wrap it three times."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    text = " ".join(str(error).split()) or type(error).__name__
    if "No such file or directory" in text:
        return "there is no such socket"
    if "Permission denied" in text:
        return "permission denied: is this user in the group docker?"
    return text[:200]
