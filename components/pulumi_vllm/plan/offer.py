"""One machine that can be rented, as data; the cloud room fills it in, the plan room prices with it."""

from __future__ import annotations

from dataclasses import dataclass


def mountable(kind: str) -> bool:
    """Whether a volume of this kind can be mounted: of NFS nobody has published a server and a path."""
    return kind != "nfs"


@dataclass(frozen=True, slots=True)
class Offer:
    """A rentable machine. `gpu_type` is the API's word, `gpu` the family that a stack file names."""

    provider: str
    offer_id: str
    gpu_type: str
    gpu: str
    gpu_count: int
    gpu_memory_gb: int | None
    usd_per_hour: float
    billing: str
    regions: tuple[str, ...]
    operating_systems: tuple[str, ...]
    supports_cloud_init: bool
    mount_kind: str
    name: str
    maintenance: bool
    minimum_runtime_min: int | None

    @property
    def mountable(self) -> bool:
        """Whether a volume can be mounted in this machine."""
        return mountable(self.mount_kind)
