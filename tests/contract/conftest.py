"""Where the contract runs here: one place an engine and shell."""

from __future__ import annotations

PLACES = {
    "docker-bash": {"engine": "docker", "image": "debian:stable-slim"},
    "docker-dash": {"engine": "docker", "image": "debian:stable-slim", "shell": "sh"},
    "docker-busybox": {"engine": "docker", "image": "busybox:latest"},
    "podman-bash": {"engine": "podman", "image": "debian:stable-slim"},
    "bubblewrap-bash": {"engine": "bubblewrap"},
    "bubblewrap-dash": {"engine": "bubblewrap", "shell": "sh"},
    "bubblewrap-zsh": {"engine": "bubblewrap", "shell": "zsh"},
}


def pytest_sandbox_places() -> dict[str, dict[str, str]]:
    return PLACES
