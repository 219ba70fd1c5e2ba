"""The offers of the local cloud: CPU machines at a cent per hour, GPU machines at public list prices."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

InstanceType = Literal["SPOT", "DEDICATED", "CLUSTER"]


@dataclass(slots=True)
class Offer:
    """A machine that can be rented; the price is in USD per hour for the whole machine."""

    provider: str
    offer_id: str
    gpu_type: str
    gpu_count: int
    gpu_memory_gb: int
    vcpus: int
    memory_gb: int
    storage_gb: int
    price: float
    instance_type: InstanceType
    region: str
    operating_systems: tuple[str, ...]
    cloud_init: bool
    name: str
    maintenance: bool = False
    gone: bool = False
    extras: dict[str, Any] = field(default_factory=dict)

    def listing(self) -> dict[str, Any]:
        """Return the offer as the API lists it: without `region`, and always `available`."""
        item: dict[str, Any] = {
            "provider": self.provider,
            "offerId": self.offer_id,
            "name": self.name,
            "vcpus": self.vcpus,
            "memory": self.memory_gb,
            "storage": self.storage_gb,
            "gpuCount": self.gpu_count,
            "gpu_memory": self.gpu_memory_gb,
            "price": self.price,
            "available": True,
            "maintenance": self.maintenance,
            "clusters": [self.region],
            "os_options": list(self.operating_systems),
            "interconnectType": self.gpu_type.partition("_")[2] or None,
            "instanceType": self.instance_type,
            "supportsCloudInit": self.cloud_init,
            "supportsPause": False,
            "pauseUnsupportedReason": "a stopped machine bills in full",
            "minimumRuntimeMinutes": 20,
            "extras": {"deployment_type": "vm", **self.extras},
        }
        if self.instance_type == "SPOT":
            item["spot_price"] = self.price
        return item


@dataclass(frozen=True, slots=True)
class _Place:
    provider: str
    region: str
    system: str
    premium: float  # USD per GPU and hour over the list price
    spot: bool


_PLACES = (
    _Place("spheron-es", "US Central 1", "Ubuntu 24.04 (CUDA 13)", 0.0, spot=True),
    _Place("data-crunch", "Finland 3", "Ubuntu 22.04 + CUDA 13.0 Open + Docker", 0.02, spot=True),
)
# USD per GPU and hour, on demand and spot: from the tutorial of 2026-04; spot H200 as listed on 2026-05-15.
_GPUS = (("H200_SXM5", 141, 3.96, 1.95), ("H100_SXM5", 80, 2.54, 0.80))
_SYSTEM = "Guest of the host's own release"


def _cpu(place: _Place, kind: InstanceType) -> Offer:
    suffix, label, price = ("::spot", " (Spot)", 0.005) if kind == "SPOT" else ("", "", 0.01)
    return Offer(
        provider=place.provider, offer_id=f"{place.region}::cpu::2vcpu-8gb{suffix}", gpu_type="CPU", gpu_count=0,
        gpu_memory_gb=0, vcpus=2, memory_gb=8, storage_gb=20, price=price, instance_type=kind,
        region=place.region, operating_systems=(_SYSTEM,), cloud_init=True,
        name=f"CPU guest - 2vcpu-8gb ({place.region}){label}",
    )  # fmt: skip


def _gpu(place: _Place, gpu: tuple[str, int, float, float], count: int, kind: InstanceType) -> Offer:
    gpu_type, memory, on_demand, spot = gpu
    preset = f"{count}gpu-{16 * count}vcpu-{200 * count}gb"
    suffix, label = ("::spot", " (Spot)") if kind == "SPOT" else ("", "")
    each = (spot if kind == "SPOT" else on_demand) + place.premium
    return Offer(
        provider=place.provider,
        offer_id=f"{place.region}::gpu-{gpu_type.lower().replace('_', '-')}::{preset}{suffix}",
        gpu_type=gpu_type, gpu_count=count, gpu_memory_gb=memory, vcpus=16 * count, memory_gb=200 * count,
        storage_gb=200 * count, price=round(count * each, 4), instance_type=kind, region=place.region,
        operating_systems=(place.system,), cloud_init=True,
        name=f"{count}x {gpu_type} - {preset} ({place.region}){label}",
        extras={"nvlink": count > 1, "technical": {"units_available": 4}},
    )  # fmt: skip


def default_offers() -> list[Offer]:
    """Return CPU, H200 and H100 in two places, one L40S at each of two other providers, and one in maintenance."""
    kinds: tuple[InstanceType, ...] = ("DEDICATED", "SPOT")
    offers = [_cpu(place, kind) for place in _PLACES for kind in kinds]
    offers += [
        _gpu(place, gpu, count, kind)
        for place in _PLACES
        for gpu in _GPUS
        for count in (1, 2, 4, 8)
        for kind in kinds
        if kind != "SPOT" or place.spot
    ]
    massed = _Place("massed-compute", "us-central-9", "Ubuntu Server 22.04", 0.0, spot=False)
    park = _Place("voltage-park", "us-east-virginia-1", "ubuntu-22.04", 0.0, spot=False)
    offers.append(_gpu(massed, ("L40S_PCIE", 48, 0.99, 0.0), 1, "DEDICATED"))
    offers.append(_gpu(park, ("L40S_PCIE", 48, 1.05, 0.0), 1, "DEDICATED"))
    in_maintenance = _gpu(_PLACES[0], ("A100_80G_SXM4", 80, 1.49, 0.0), 1, "DEDICATED")
    in_maintenance.maintenance = True
    return [*offers, in_maintenance]


def groups(offers: list[Offer], instance_type: str | None, search: str | None) -> list[dict[str, Any]]:
    """Group offers by GPU. As in the live service, `instance_type` selects whole groups, not offers within them."""
    out: list[dict[str, Any]] = []
    for gpu_type in dict.fromkeys(offer.gpu_type for offer in offers):
        inside = [offer for offer in offers if offer.gpu_type == gpu_type and not offer.gone]
        base, _, variant = gpu_type.partition("_")
        if not inside or (search and search.lower() not in gpu_type.lower()):
            continue
        if instance_type and not any(offer.instance_type == instance_type for offer in inside):
            continue
        prices = [offer.price for offer in inside]
        out.append(
            {
                "gpuType": gpu_type,
                "gpuModel": base,
                "baseGpuType": base,
                "displayName": gpu_type.replace("_", " "),
                "interconnectVariants": [variant] if variant else [],
                "hasMultipleVariants": False,
                "popularity": len(out) + 1,
                "totalAvailable": len(inside),
                "lowestPrice": min(prices),
                "highestPrice": max(prices),
                "averagePrice": round(sum(prices) / len(prices), 4),
                "providers": sorted({offer.provider for offer in inside}),
                "offers": [offer.listing() for offer in inside],
            }
        )
    return out
