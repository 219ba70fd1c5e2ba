"""Spot machines: what an hour of serving costs if machines are taken back, and how much of the time they serve."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pulumi_vllm.plan.catalogue import WARM_REPLACEMENT
from pulumi_vllm.plan.pricing import HOURS_PER_MONTH, assumptions

if TYPE_CHECKING:
    from pulumi_vllm.plan.catalogue import Measured

_HOURS_PER_DAY, _SECONDS_PER_HOUR = 24, 3600


@dataclass(frozen=True, slots=True)
class Spot:
    """Expected interruptions. Machines are taken back at random, at any age; a new one is billed while it starts."""

    interruptions_per_day: float
    cold_start_s: float
    because: str

    @property
    def availability(self) -> float:
        """Fraction of the time that a machine serves: e^(-rate x cold start), since a start can be interrupted too."""
        return math.exp(-self.interruptions_per_day / _HOURS_PER_DAY * self.cold_start_s / _SECONDS_PER_HOUR)

    @property
    def interruptions_per_month(self) -> float:
        """Expected interruptions in 730 hours."""
        return self.interruptions_per_day / _HOURS_PER_DAY * HOURS_PER_MONTH

    def effective(self, usd_per_hour: float) -> float:
        """USD per hour of serving, since the starts are billed as well."""
        return usd_per_hour / self.availability

    def sentence(self, usd_per_hour: float) -> str:
        """The expectation as a sentence, with every input."""
        return (
            f"Spot: {self.interruptions_per_month:.0f} interruptions a month "
            f"({self.interruptions_per_day:g} a day) x {self.cold_start_s / 60:.0f} min of cold start: "
            f"it serves {self.availability:.1%} of the time, "
            f"${self.effective(usd_per_hour):.2f} per hour of serving ({self.because})."
        )


def expected(
    measured: Measured | None,
    interruptions_per_day: float | None = None,
    cold_start_min: float | None = None,
) -> Spot:
    """Expected interruptions, from the caller's figures, measured starts, or the assumptions of data/prices.yaml."""
    assumed = assumptions()["spot"]
    per_day = assumed["interruptions_per_day"]["value"]
    sources = ["interruptions assumed" if interruptions_per_day is None else "interruptions as given"]
    if cold_start_min is not None:
        cold_start_s = cold_start_min * 60
        sources.append("cold start as given")
    else:
        # A replacement machine gets the volume of the lost one. If such a start was not measured, that of a fresh host
        # is the safer figure. If only the second start on one host was measured, the assumption is.
        starts = {} if measured is None else measured.ready_s
        ready = starts.get(WARM_REPLACEMENT, starts.get("fresh host"))
        parts = [assumed[part]["value"] for part in ("machine_s", "attach_s", "install_s")]
        cold_start_s = sum(parts) + (assumed["engine_s"]["value"] if ready is None else ready)
        engine = "assumed" if ready is None else f"{ready} s measured"
        sources.append(
            f"machine {parts[0]} s, volume {parts[1]} s, install {parts[2]} s assumed, engine {engine}"
        )
    per_day = per_day if interruptions_per_day is None else interruptions_per_day
    return Spot(per_day, cold_start_s, "; ".join(sources))


def usd_per_serving_hour(usd_per_hour: float | None, billing: str, measured: Measured | None) -> float | None:
    """USD per hour of serving. The starts of spot machines are included."""
    if usd_per_hour is None or billing != "spot":
        return usd_per_hour
    return expected(measured).effective(usd_per_hour)
