"""What the simulator asks of the machines behind it; guests do it, and in fast tests a double."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pulumi_vllm_local.machines.containers import Address, Machine, MachineSpec, Status
    from pulumi_vllm_local.machines.disks import Kind


class DiskRack(Protocol):
    """Volumes; attaching is the machines' business."""

    def create(self, volume_id: str, size_gb: int, kind: Kind, tag: str | None = None) -> Any:
        """Make a volume unless it is there."""

    def get(self, volume_id: str) -> Any:
        """The volume with its `machine`, or None."""

    def grow(self, volume_id: str, size_gb: int) -> bool:
        """Make a volume larger; False where that takes a restart of its machine."""

    def delete(self, volume_id: str) -> None:
        """Remove a volume that is not attached."""


class Hardware(Protocol):
    """Machines; every call may block and runs in a thread."""

    @property
    def disks(self) -> DiskRack:
        """The volumes."""

    def create(self, spec: MachineSpec) -> Address:
        """Make disk and address, idempotent by id."""

    def start(self, machine_id: str, /) -> None:
        """Boot; returns at once."""

    def answers(self, machine_id: str, /) -> bool:
        """Whether its sshd answers."""

    def stop(self, machine_id: str, /, grace: float = 90.0) -> None:
        """Power off cleanly; pull the plug after `grace` seconds."""

    def kill(self, machine_id: str, /) -> None:
        """Pull the plug."""

    def move(self, machine_id: str, /) -> Address:
        """Give a machine that is off another address."""

    def pause(self, machine_id: str, /) -> None:
        """Freeze the guest."""

    def unpause(self, machine_id: str, /) -> None:
        """Let it go on."""

    def destroy(self, machine_id: str, /) -> None:
        """Remove the machine; its volumes stay."""

    def state(self, machine_id: str, /) -> Status:
        """What it is doing."""

    def attach(self, machine_id: str, volume_id: str, /) -> str:
        """Attach a volume; a share restarts a running machine."""

    def detach(self, machine_id: str, volume_id: str, /, *, force: bool = False) -> None:
        """Detach a volume; refused while mounted unless forced."""

    def list(self) -> tuple[Machine, ...]:
        """Every machine there is."""

    def reconcile(self) -> tuple[str, ...]:
        """After a crash: adopt, restart or clean; what was done, a sentence each."""
