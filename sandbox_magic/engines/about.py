"""What an engine of Docker's kind says of itself, and what follows for a sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox_magic.errors import EngineUnavailable, InvalidOptions
from sandbox_magic.spec import SandboxSpec


@dataclass(frozen=True, slots=True)
class About:
    """An engine.

    Attributes:
        cpus: How many processors it has.
        shares_processors: Whether it can limit their time.
        architecture: Of its machine, as `uname` or Go call it.
        default: The runtime that it takes by itself.
        runtimes: Those that can be asked for, with how each is registered.
        drops_ulimits: Whether it forgets those of a create request.
    """

    cpus: float = 1.0
    shares_processors: bool = True
    architecture: str = ""
    default: str = ""
    runtimes: Mapping[str, Any] = field(default_factory=dict)
    drops_ulimits: bool = False

    @classmethod
    def read(cls, info: Mapping[str, Any], *, choice: bool) -> About:
        """Return what its answer says.

        Args:
            info: The answer.
            choice: Whether its runtimes can be chosen.

        Raises:
            EngineUnavailable: It would drop the limits of a sandbox without a word.
        """
        rootless = info.get("Rootless") or "name=rootless" in (info.get("SecurityOptions") or ())  # Podman, Docker
        if rootless and str(info.get("CgroupVersion")) == "1":
            raise EngineUnavailable(
                "a rootless engine on cgroup version 1 enforces no limits on memory, processes and processors: use it "
                "on a machine with cgroup version 2, or as root"
            )
        # Podman looks for a file of version 1, and says no wherever there is version 2: there it is tried.
        podman = "BuildahVersion" in info
        untold = podman and str(info.get("CgroupVersion")) == "2"
        return cls(
            cpus=float(info.get("NCPU", 1)),
            shares_processors=untold or bool(info.get("CpuCfsQuota", True)),
            architecture=info.get("Architecture", ""),
            default=info.get("DefaultRuntime", ""),
            runtimes=(info.get("Runtimes") or {}) if choice else {},
            drops_ulimits=bool(podman and rootless),
        )

    def asked(self, spec: SandboxSpec) -> str | None:
        """Return the runtime to ask for; `None` is the engine's own choice.

        Raises:
            InvalidOptions: The engine has no runtime of the name that was asked for.
        """
        if spec.runtime is not None and spec.runtime not in self.runtimes:
            known = ", ".join(sorted(self.runtimes))
            raise InvalidOptions(f"runtime {spec.runtime!r} is not registered with this engine, which has: {known}")
        wanted = spec.limits.runtime
        if spec.runtime is None and wanted and wanted in self.runtimes and not self.drops_limits(wanted):
            return wanted
        return spec.runtime

    def gvisor(self, spec: SandboxSpec) -> bool:
        """Whether a sandbox of this wish has a kernel of its own."""
        runtime = self.asked(spec) or self.default
        return "runsc" in f"{runtime} {self.runtimes.get(runtime, {}).get('path', '')}"

    def named(self, runtime: str) -> str:
        """Return the name of a runtime that an inspection tells; Podman says only that it is one."""
        return runtime if runtime in self.runtimes else self.default

    def drops_limits(self, runtime: str) -> bool:
        """Whether a runtime was registered so that it ignores the limits of memory, processes and processors."""
        return "--ignore-cgroups" in (self.runtimes.get(runtime, {}).get("runtimeArgs") or ())

    def names(self) -> tuple[str, ...]:
        """Return all runtimes, its own choice first."""
        return tuple(sorted({*self.runtimes, self.default}, key=lambda name: (name != self.default, name)))
