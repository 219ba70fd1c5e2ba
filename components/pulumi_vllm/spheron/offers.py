"""Offers: from the vendor's groups to plain data, and the choice among them with its reasons."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pulumi_vllm.plan.offer import Offer
from pulumi_vllm.spheron import wire
from pulumi_vllm.spheron.errors import CloudError
from pulumi_vllm.spheron.providers import mount_kind, unmountable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CPU = "CPU"
_BILLING = {"SPOT": "spot", "DEDICATED": "on-demand", "CLUSTER": "cluster", "BARE_METAL": "bare-metal"}
INSTANCE_TYPES = {word: kind for kind, word in _BILLING.items()}
_NEAREST = 3
_SYSTEMS = (("ubuntu", "24.04"), ("ubuntu", "22.04"), ("debian", "12"), ("ubuntu", ""))


def parse(groups: Iterable[wire.Record]) -> tuple[Offer, ...]:
    """Flatten groups; an offer that lacks what a create needs is left out."""
    return tuple(
        offer
        for group in groups
        for item in group.get("offers") or []
        if isinstance(item, dict) and (offer := _offer(group, item)) is not None
    )


def choose(  # noqa: PLR0917 (read in the order of a stack file)
    offers: Iterable[Offer],
    gpu: str,
    count: int,
    billing: Sequence[str],
    region: str | None = None,
    max_usd_per_hour: float | None = None,
    *,
    with_volume: bool = False,
) -> list[Offer]:
    """The offers that do: by the first way of billing, cheapest first, then by the next one.

    `with_volume` takes only those where a volume can be mounted.

    Raises:
        CloudError: none does; the sentence names the nearest.
    """
    everything = list(offers)
    same = [offer for offer in everything if _is_gpu(offer, gpu) and offer.gpu_count == count]
    billed = [offer for offer in same if offer.billing in billing]
    up = [offer for offer in billed if not offer.maintenance]
    here = [offer for offer in up if region is None or offer.own_region(region)]
    fit = [offer for offer in here if not with_volume or offer.mountable]
    found = [offer for offer in fit if max_usd_per_hour is None or offer.usd_per_hour <= max_usd_per_hour]
    if not found:
        why = _Sieve(gpu, everything, same, billed, up, here, fit).why(region, max_usd_per_hour)
        raise CloudError(f"{_label(gpu, count)}, {' or '.join(billing)}: {why}")
    return sorted(found, key=lambda offer: (billing.index(offer.billing), *_rank(offer)))


def instance_type(offer: Offer) -> str:
    """The API's word for how an offer is billed."""
    return INSTANCE_TYPES.get(offer.billing, offer.billing.upper())


def _offer(group: wire.Record, item: wire.Record) -> Offer | None:
    provider, offer_id = wire.text(item, "provider"), wire.text(item, "offerId")
    price, count = wire.number(item, "price"), wire.whole(item, "gpuCount")
    gpu_type = wire.text(item, "gpuType") or wire.text(group, "gpuType")
    region = wire.text(item, "region")
    regions = wire.texts(item, "clusters") or ((region,) if region else ())
    systems = wire.texts(item, "os_options", "osOptions")
    if not (provider and offer_id and gpu_type and regions and systems) or price is None or count is None:
        return None
    return Offer(
        provider=provider,
        offer_id=offer_id,
        gpu_type=gpu_type,
        gpu=CPU if count == 0 else _family(gpu_type),
        gpu_count=count,
        gpu_memory_gb=wire.whole(item, "gpu_memory") or None,
        usd_per_hour=price,
        billing=_billing(item, offer_id),
        regions=regions,
        operating_systems=tuple(sorted(systems, key=_system_rank)),
        supports_cloud_init=item.get("supportsCloudInit") is True,
        mount_kind=mount_kind(provider),
        name=wire.text(item, "name") or f"{count}x {gpu_type} ({regions[0]})",
        maintenance=item.get("maintenance") is True,
        minimum_runtime_min=wire.whole(item, "minimumRuntimeMinutes"),
    )


def _billing(item: wire.Record, offer_id: str) -> str:
    kind = (wire.text(item, "instanceType") or "DEDICATED").upper()
    if kind == "SPOT" or wire.number(item, "spot_price") is not None or offer_id.endswith("::spot"):
        return "spot"
    return _BILLING.get(kind, kind.lower())


def _family(gpu_type: str) -> str:
    """H200_SXM5, h200-sxm5 and "H200 SXM5" are an H200."""
    return re.split(r"[_\-\s]", gpu_type.upper(), maxsplit=1)[0]


def _plain(word: str) -> str:
    return re.sub(r"[^A-Z0-9]", "", word.upper())


def _is_gpu(offer: Offer, gpu: str) -> bool:
    return _plain(gpu) in {_plain(offer.gpu), _plain(offer.gpu_type)}


def _system_rank(system: str) -> int:
    """The bootstrap is for Debian and Ubuntu; the newest LTS that was tried comes first."""
    words = system.casefold()
    for rank, known in enumerate(_SYSTEMS):
        if all(part in words for part in known):
            return rank
    return len(_SYSTEMS)


def _rank(offer: Offer) -> tuple[float, bool, str, str]:
    return offer.usd_per_hour, not offer.supports_cloud_init, offer.provider, offer.offer_id


def _label(gpu: str, count: int) -> str:
    return f"{count}x {gpu}" if count else gpu


@dataclass(frozen=True, slots=True)
class _Sieve:
    """What was left after each wish; the first empty one is the reason."""

    gpu: str
    everything: list[Offer]
    same: list[Offer]
    billed: list[Offer]
    up: list[Offer]
    here: list[Offer]
    fit: list[Offer]

    def why(self, region: str | None, ceiling: float | None) -> str:
        if not self.same:
            return self._no_such_gpu()
        if not self.billed:
            return f"no offer billed like that; {_nearest(self.same)}"
        if not self.up:
            return f"all {len(self.billed)} offers are in maintenance; try later, or another GPU or billing"
        if not self.here:
            regions = sorted({own for offer in self.up for own in offer.regions})
            return f"no offer in region {region}; there are {', '.join(regions)}"
        if not self.fit:
            return unmountable(self.here[0].provider, region or self.here[0].regions[0])
        return f"no offer within ${ceiling or 0:.2f}/h; {_nearest(self.fit)}; raise max_usd_per_hour"

    def _no_such_gpu(self) -> str:
        if not self.everything:
            return "the cloud lists no offers at all; check the provider, or try later"
        counts = sorted({offer.gpu_count for offer in self.everything if _is_gpu(offer, self.gpu)})
        if counts:
            return f"no offer with that many GPUs; {self.gpu} comes with {', '.join(map(str, counts))}"
        return (
            f"no offer with this GPU; there are {', '.join(sorted({offer.gpu for offer in self.everything}))}"
        )


def _nearest(offers: list[Offer]) -> str:
    shown = [
        f"${offer.usd_per_hour:.2f}/h {offer.billing} at {offer.provider} ({offer.regions[0]})"
        for offer in sorted(offers, key=_rank)[:_NEAREST]
    ]
    return f"nearest: {', '.join(shown)}"
