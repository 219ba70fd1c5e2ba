"""An offer of a machine, as data: a cloud's client fills it in, and the plan compares prices with it."""

from __future__ import annotations

from dataclasses import dataclass


def mountable(kind: str) -> bool:
    """Whether a volume of this kind can be mounted. For NFS, no provider has published a server and a path."""
    return kind != "nfs"


@dataclass(frozen=True, slots=True)
class Offer:
    """A machine on offer. `gpu_type` is the API's name, `gpu` the family that a stack file names."""

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

    def own_region(self, region: str) -> str | None:
        """The offer's own spelling of a region, or None. An opaque prefix and letter case are ignored."""
        if region in self.regions:
            return region
        wanted = region.casefold()
        for own in self.regions:
            if wanted in {own.casefold(), own.rpartition(":")[2].casefold()}:
                return own
        return None

    def place(self, region: str | None = None) -> str:
        """The provider and the region: the given one, or the first of the offer."""
        return f"{self.provider}, {self.own_region(region) if region else self.regions[0]}"

    @property
    def mountable(self) -> bool:
        """Whether a volume can be mounted on this machine."""
        return mountable(self.mount_kind)
