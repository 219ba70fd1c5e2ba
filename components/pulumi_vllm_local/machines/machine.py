"""The data types of a machine."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class MachineError(Exception):
    """A machine failed; the message says which one, what is wrong and what to do."""


class Status(StrEnum):
    """The status of a machine."""

    CREATED = "created"  # never booted
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"  # powered off, by the local cloud or from within
    PREEMPTED = "preempted"  # killed by the local cloud
    FAILED = "failed"  # ended unexpectedly
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Address:
    """The address of the sshd of a machine, and its login."""

    host: str
    ipv6: str
    port: int
    user: str


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """The request for a machine."""

    id: str
    name: str
    layers: tuple[str, ...]
    user: str
    ssh_public_key: str
    user_data: Mapping[str, Any] | None = None
    gpu: str | None = None
    gpu_count: int = 0

    def plain(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        plain = {name: getattr(self, name) for name in MachineSpec.__slots__}
        plain["layers"] = list(self.layers)
        plain["user_data"] = None if self.user_data is None else dict(self.user_data)
        return plain

    @classmethod
    def restored(cls, plain: Mapping[str, Any]) -> MachineSpec:
        """Restore it from JSON."""
        return cls(**{**plain, "layers": tuple(plain["layers"])})

    def images(self) -> tuple[str, ...]:
        """Return the names of its images, the topmost layer first."""
        gpu = (f"gpu-{self.gpu.lower()}-{self.gpu_count}x",) if self.gpu else ()
        return (*gpu, *reversed(self.layers), "base")


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine with its address and status."""

    spec: MachineSpec
    address: Address
    status: Status
    boots: int
    exit_code: int | None
