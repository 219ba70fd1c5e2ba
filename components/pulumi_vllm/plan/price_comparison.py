"""Compares one shared machine with a separate server for each model, at the tutorial's prices and at today's offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pulumi_vllm.plan.pricing import HOURS_PER_MONTH, assumptions, cheapest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pulumi_vllm.plan.offer import Offer


@dataclass(frozen=True, slots=True)
class Separate:
    """What the separate servers cost together, with one kind of billing."""

    servers: int
    gpu: str
    billing: str
    usd_per_hour: float | None
    source: str

    @property
    def usd_per_month(self) -> float | None:
        """USD for 730 hours."""
        return None if self.usd_per_hour is None else self.usd_per_hour * HOURS_PER_MONTH

    def saved(self, usd_per_hour: float) -> float | None:
        """Fraction of their price that a machine at this price saves; negative if it costs more."""
        return None if not self.usd_per_hour else 1 - usd_per_hour / self.usd_per_hour

    def sentence(self, usd_per_hour: float | None) -> str:
        """The comparison with one machine's price as a sentence."""
        head = f"{self.servers} separate {self.gpu} servers, {self.billing}"
        month = self.usd_per_month
        if self.usd_per_hour is None or month is None:
            return f"{head}: no price ({self.source})."
        text = f"{head}: ${self.usd_per_hour:.2f}/h, ${month:,.2f} per month ({self.source})"
        saved = None if usd_per_hour is None else self.saved(usd_per_hour)
        if saved is None or usd_per_hour is None:
            return f"{text}."
        word = "saves" if saved >= 0 else "costs more by"
        return f"{text}; this machine at ${usd_per_hour:.2f}/h {word} {abs(saved):.0%}."


def separate(offers: Sequence[Offer] | None) -> tuple[Separate, ...]:
    """The tutorial's prices and, if there are offers, the same machines at today's prices."""
    tutorial = assumptions()["separate"]
    servers, gpu, count = tutorial["servers"], tutorial["gpu"], tutorial["count"]
    rows = [
        Separate(servers, gpu, billing, usd, tutorial["source"])
        for billing, usd in tutorial["usd_per_hour"].items()
    ]
    if offers is not None:
        for billing in tutorial["usd_per_hour"]:
            found = cheapest(offers, gpu, count, billing)
            usd = None if found is None else round(servers * found.usd_per_hour, 4)
            source = f"no {count}x {gpu} on offer" if found is None else f"today's offers, {found.provider}"
            rows.append(Separate(servers, gpu, billing, usd, source))
    return tuple(rows)
