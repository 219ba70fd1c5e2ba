"""A machine as the local cloud's parts speak of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class MachineError(Exception):
    """A sentence: which machine, what happened, what to do."""


class Status(StrEnum):
    """What a machine is doing now."""

    CREATED = "created"  # never booted
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"  # powered off, by us or from within
    PREEMPTED = "preempted"  # killed by us
    FAILED = "failed"  # ended and nobody asked for it
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Address:
    """Where the machine's sshd listens."""

    host: str
    ipv6: str
    port: int
    user: str


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """What the cloud was asked for."""

    id: str
    name: str
    layers: tuple[str, ...]
    user: str
    ssh_public_key: str
    user_data: Mapping[str, Any] | None = None
    gpu: str | None = None
    gpu_count: int = 0

    def plain(self) -> dict[str, Any]:
        """Return it for a JSON record."""
        plain = {name: getattr(self, name) for name in MachineSpec.__slots__}
        plain["layers"] = list(self.layers)
        plain["user_data"] = None if self.user_data is None else dict(self.user_data)
        return plain

    @classmethod
    def restored(cls, plain: Mapping[str, Any]) -> MachineSpec:
        """Read it back."""
        return cls(**{**plain, "layers": tuple(plain["layers"])})

    def images(self) -> tuple[str, ...]:
        """Return the images its disk stands on, the topmost first."""
        gpu = (f"gpu-{self.gpu.lower()}-{self.gpu_count}x",) if self.gpu else ()
        return (*gpu, *reversed(self.layers), "base")


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine and what it is doing."""

    spec: MachineSpec
    address: Address
    status: Status
    boots: int
    exit_code: int | None
