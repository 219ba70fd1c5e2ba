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
    holds: str = ""
    """What each of them holds of the request."""

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
            return f"{text}{self._held()}."
        word = "saves" if saved >= 0 else "costs more by"
        return f"{text}; this machine at ${usd_per_hour:.2f}/h {word} {abs(saved):.0%}{self._held()}."

    def _held(self) -> str:
        return f"; {self.holds}" if self.holds else ""


def separate_machine() -> tuple[str, int]:
    """GPU and count of each separate server."""
    tutorial = assumptions()["separate"]
    return tutorial["gpu"], tutorial["count"]


def spot_then_and_now(offers: Sequence[Offer] | None, listed: float | None, dated: str) -> str:
    """The tutorial's spot price of its shared machine beside today's, with the difference.

    Args:
        offers: today's offers; None uses the dated price list.
        listed: USD per hour and GPU in the dated price list; None if none is recorded.
        dated: the date of the price list.
    """
    then = assumptions()["shared"]
    gpu, count, billing = then["gpu"], then["count"], then["billing"]
    head = (
        f"{count}x {gpu} {billing} cost ${then['usd_per_hour']:.2f}/h, ${then['usd_per_month']:,} per month "
        f"({then['source']})"
    )
    if offers is None:
        usd, source = None if listed is None else listed * count, f"price list of {dated}"
    else:
        found = cheapest(offers, gpu, count, billing)
        usd, source = (
            (None, "") if found is None else (found.usd_per_hour, f"today's offers, {found.provider}")
        )
    if usd is None:
        return f"{head}; there is no {billing} price of it now."
    now = f"now ${usd:.2f}/h, ${usd * HOURS_PER_MONTH:,.0f} per month of {HOURS_PER_MONTH} h ({source})"
    each = f"${then['usd_per_hour'] / count:.2f} then and ${usd / count:.2f} now for each {gpu} and hour"
    return (
        f"{head}, {now}: {each}; spot prices follow demand, and the starts after interruptions come on top."
    )


def separate(offers: Sequence[Offer] | None, holds: str = "") -> tuple[Separate, ...]:
    """The tutorial's prices and, if there are offers, the same machines at today's prices."""
    tutorial = assumptions()["separate"]
    servers, gpu, count = tutorial["servers"], tutorial["gpu"], tutorial["count"]
    rows = [
        Separate(servers, gpu, billing, usd, tutorial["source"], holds)
        for billing, usd in tutorial["usd_per_hour"].items()
    ]
    if offers is not None:
        for billing in tutorial["usd_per_hour"]:
            found = cheapest(offers, gpu, count, billing)
            usd = None if found is None else round(servers * found.usd_per_hour, 4)
            source = f"no {count}x {gpu} on offer" if found is None else f"today's offers, {found.provider}"
            rows.append(Separate(servers, gpu, billing, usd, source, holds))
    return tuple(rows)
