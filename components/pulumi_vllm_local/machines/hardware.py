"""The interface between the simulated API and its machines: containers, or a double in fast tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pulumi_vllm_local.machines.containers import Address, Machine, MachineSpec, Status
    from pulumi_vllm_local.machines.disks import Kind


class DiskStore(Protocol):
    """The disks of the volumes; `Hardware` attaches them."""

    def create(self, volume_id: str, size_gb: int, kind: Kind, tag: str | None = None) -> Any:
        """Create a volume unless it exists."""

    def get(self, volume_id: str) -> Any:
        """Return the volume with its `machine`, or None."""

    def grow(self, volume_id: str, size_gb: int) -> bool:
        """Grow a volume; return False if its machine has to restart for that."""

    def delete(self, volume_id: str) -> None:
        """Delete a volume that is not attached."""


class Hardware(Protocol):
    """The machines. Every call may block, so it runs in a thread."""

    @property
    def disks(self) -> DiskStore:
        """The disks of the volumes."""

    def create(self, spec: MachineSpec) -> Address:
        """Create disk and address unless the machine exists."""

    def start(self, machine_id: str, /) -> None:
        """Boot a machine; return at once."""

    def answers(self, machine_id: str, /) -> bool:
        """Return whether the sshd of a machine answers."""

    def stop(self, machine_id: str, /, grace: float = 90.0) -> None:
        """Power off a machine; kill it after `grace` seconds."""

    def kill(self, machine_id: str, /) -> None:
        """Kill a machine without notice."""

    def move(self, machine_id: str, /) -> Address:
        """Give a stopped machine another address."""

    def pause(self, machine_id: str, /) -> None:
        """Freeze a machine."""

    def unpause(self, machine_id: str, /) -> None:
        """Resume a frozen machine."""

    def destroy(self, machine_id: str, /) -> None:
        """Remove the machine; its volumes stay."""

    def state(self, machine_id: str, /) -> Status:
        """Return the status of a machine."""

    def attach(self, machine_id: str, volume_id: str, /) -> str:
        """Attach a volume; a share restarts a running machine."""

    def detach(self, machine_id: str, volume_id: str, /, *, force: bool = False) -> None:
        """Detach a volume; a mounted one needs `force`."""

    def list(self) -> tuple[Machine, ...]:
        """Return all machines."""

    def reconcile(self) -> tuple[str, ...]:
        """Adopt, restart or remove machines after a crash; return a message for each."""
