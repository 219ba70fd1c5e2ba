"""What a machine costs per hour: the cheapest fitting offer, else a dated table that says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .catalogue import Gpu
    from .config import Deployment
    from .offer import Offer

HOURS_PER_MONTH = 730


@dataclass(frozen=True, slots=True)
class Price:
    """USD of the whole machine per hour, None when unknown; `source` says where it is from."""

    usd_per_hour: float | None
    source: str
    ceiling: float

    def sentence(self) -> str:
        """For a person."""
        if self.usd_per_hour is None:
            return f"Price unknown: {self.source}; the ceiling is ${self.ceiling:.2f}/h."
        month = self.usd_per_hour * HOURS_PER_MONTH
        text = f"${self.usd_per_hour:.2f}/h, ${month:,.0f} per month of 730 h ({self.source})"
        over = f", above the ceiling of ${self.ceiling:.2f}/h" if self.usd_per_hour > self.ceiling else ""
        return f"{text}{over}."


def per_hour(deployment: Deployment, gpu: Gpu, offers: Sequence[Offer] | None, dated: str) -> Price:
    """The price of the machine that the stack file asks for; `offers` None means none were asked for."""
    machine = deployment.machine
    if offers is None:
        each = gpu.usd_per_hour.get(machine.billing)
        if each is None:
            return Price(
                None, f"no {machine.billing} price of {gpu.name} is recorded", machine.max_usd_per_hour
            )
        total = round(each * max(1, machine.count), 4)
        return Price(total, f"price list of {dated}, not today's offers", machine.max_usd_per_hour)
    prices = [offer.usd_per_hour for offer in offers if _fits(offer, deployment)]
    if not prices:
        source = f"no {machine.billing} offer of {machine.count}x {machine.gpu} today"
        return Price(None, source, machine.max_usd_per_hour)
    return Price(min(prices), "today's cheapest offer", machine.max_usd_per_hour)


def _fits(offer: Offer, deployment: Deployment) -> bool:
    machine = deployment.machine
    return (
        not offer.maintenance
        and (offer.gpu, offer.gpu_count, offer.billing) == (machine.gpu, machine.count, machine.billing)
        and (machine.region is None or machine.region in offer.regions)
    )
