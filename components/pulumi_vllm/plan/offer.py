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

    def own_region(self, region: str) -> str | None:
        """Its own spelling of a region; an opaque prefix and letter case are forgiven. None where it is not there."""
        if region in self.regions:
            return region
        wanted = region.casefold()
        for own in self.regions:
            if wanted in {own.casefold(), own.rpartition(":")[2].casefold()}:
                return own
        return None

    def place(self, region: str | None = None) -> str:
        """Who rents it out, and where: in this region, or in the first of its own."""
        return f"{self.provider}, {self.own_region(region) if region else self.regions[0]}"

    @property
    def mountable(self) -> bool:
        """Whether a volume can be mounted in this machine."""
        return mountable(self.mount_kind)
