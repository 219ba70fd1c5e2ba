"""Offers at the rental API: the vendor's groups become plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulumi_vllm.plan.card_names import card_name
from pulumi_vllm.plan.offer import Offer
from pulumi_vllm.spheron import json_fields as fields
from pulumi_vllm.spheron.providers import mount_kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pulumi_vllm.spheron.transport import Transport

CPU = "CPU"
_BILLING_OF_TYPE = {
    "SPOT": "spot",
    "DEDICATED": "on-demand",
    "CLUSTER": "cluster",
    "BARE_METAL": "bare-metal",
}
_TYPE_OF_BILLING = {billing: kind for kind, billing in _BILLING_OF_TYPE.items()}
# The bootstrap is for Debian and Ubuntu. The newest LTS that was tested comes first.
_SYSTEMS = (("ubuntu", "24.04"), ("ubuntu", "22.04"), ("debian", "12"), ("ubuntu", ""))


class Offers:
    """`/api/gpu-offers`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> tuple[Offer, ...]:
        """Return all offers of all groups, also those in maintenance. One that is listed twice is the later."""
        groups = self._transport.get_pages("/api/gpu-offers", "groups", action="listing offers")
        return tuple({(offer.provider, offer.offer_id): offer for offer in parse_groups(groups)}.values())


def parse_groups(groups: Iterable[fields.Record]) -> tuple[Offer, ...]:
    """Return the offers of these groups, without those that lack a field that renting needs."""
    return tuple(
        offer
        for group in groups
        for item in group.get("offers") or []
        if isinstance(item, dict) and (offer := _offer(group, item)) is not None
    )


def instance_type(offer: Offer) -> str:
    """Return the API's name for the billing of an offer."""
    return _TYPE_OF_BILLING.get(offer.billing, offer.billing.upper())


def billing_of(instance_type: str) -> str:
    """Return the stack file's name for an instance type of the API."""
    return _BILLING_OF_TYPE.get(instance_type.upper(), instance_type.lower())


def _offer(group: fields.Record, item: fields.Record) -> Offer | None:
    provider, offer_id = fields.text(item, "provider"), fields.text(item, "offerId")
    price, count = fields.number(item, "price"), fields.integer(item, "gpuCount")
    gpu_type = fields.text(item, "gpuType") or fields.text(group, "gpuType")
    memory, link = fields.integer(item, "gpu_memory") or None, fields.text(item, "interconnectType")
    region = fields.text(item, "region")
    regions = fields.texts(item, "clusters") or ((region,) if region else ())
    systems = fields.texts(item, "os_options", "osOptions")
    if not (provider and offer_id and gpu_type and regions and systems) or price is None or count is None:
        return None
    return Offer(
        provider=provider,
        offer_id=offer_id,
        gpu_type=gpu_type,
        gpu=CPU if count == 0 else card_name(gpu_type, memory, link),
        gpu_count=count,
        gpu_memory_gb=memory,
        usd_per_hour=price,
        billing=_billing(item, offer_id),
        regions=regions,
        operating_systems=tuple(sorted(systems, key=_system_rank)),
        supports_cloud_init=item.get("supportsCloudInit") is True,
        mount_kind=mount_kind(provider),
        name=fields.text(item, "name") or f"{count}x {gpu_type} ({regions[0]})",
        maintenance=item.get("maintenance") is True,
        minimum_runtime_min=fields.integer(item, "minimumRuntimeMinutes"),
    )


def _billing(item: fields.Record, offer_id: str) -> str:
    if fields.number(item, "spot_price") is not None or offer_id.endswith("::spot"):
        return "spot"
    return billing_of(fields.text(item, "instanceType") or "DEDICATED")


def _system_rank(system: str) -> int:
    name = system.casefold()
    for rank, parts in enumerate(_SYSTEMS):
        if all(part in name for part in parts):
            return rank
    return len(_SYSTEMS)
