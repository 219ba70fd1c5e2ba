"""Spot machines: what an hour of serving costs when machines are taken back, and how often nothing serves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pulumi_vllm.plan.catalogue import WARM_REPLACEMENT
from pulumi_vllm.plan.pricing import HOURS_PER_MONTH, data

if TYPE_CHECKING:
    from pulumi_vllm.plan.catalogue import Measured

_HOURS_PER_DAY, _SECONDS_PER_HOUR = 24, 3600


@dataclass(frozen=True, slots=True)
class Spot:
    """How spot goes. Machines are taken back at random, at any age; each new one is billed while it starts."""

    interruptions_per_day: float
    cold_start_s: float
    because: str

    @property
    def availability(self) -> float:
        """Part of the time that something serves: e^(-rate x cold start), since a start can be cut off too."""
        return math.exp(-self.interruptions_per_day / _HOURS_PER_DAY * self.cold_start_s / _SECONDS_PER_HOUR)

    @property
    def interruptions_per_month(self) -> float:
        """Expected in 730 hours."""
        return self.interruptions_per_day / _HOURS_PER_DAY * HOURS_PER_MONTH

    def effective(self, usd_per_hour: float) -> float:
        """USD per hour of serving: the starts are billed and serve nobody."""
        return usd_per_hour / self.availability

    def sentence(self, usd_per_hour: float) -> str:
        """For a person, with every input."""
        return (
            f"Spot: {self.interruptions_per_month:.0f} interruptions a month "
            f"({self.interruptions_per_day:g} a day) x {self.cold_start_s / 60:.0f} min of cold start: "
            f"it serves {self.availability:.1%} of the time, "
            f"${self.effective(usd_per_hour):.2f} per hour of serving ({self.because})."
        )


def expect(
    measured: Measured | None,
    interruptions_per_day: float | None = None,
    cold_start_min: float | None = None,
) -> Spot:
    """From what was measured where it was, from the assumptions of data/prices.yaml, or from the caller."""
    assumed = data()["spot"]
    per_day = assumed["interruptions_per_day"]["value"]
    said = ["interruptions assumed" if interruptions_per_day is None else "interruptions as given"]
    if cold_start_min is not None:
        cold_start_s = cold_start_min * 60
        said.append("cold start as given")
    else:
        # A machine in a lost one's place is given its volume. Where that start was not measured, a fresh host's is the
        # safer figure, and where only a host's own second start was, the assumption is.
        starts = {} if measured is None else measured.ready_s
        ready = starts.get(WARM_REPLACEMENT, starts.get("fresh host"))
        parts = [assumed[part]["value"] for part in ("machine_s", "attach_s", "install_s")]
        cold_start_s = sum(parts) + (assumed["engine_s"]["value"] if ready is None else ready)
        engine = "assumed" if ready is None else f"{ready} s measured"
        said.append(
            f"machine {parts[0]} s, volume {parts[1]} s, install {parts[2]} s assumed, engine {engine}"
        )
    given = per_day if interruptions_per_day is None else interruptions_per_day
    return Spot(given, cold_start_s, "; ".join(said))


def serving(usd_per_hour: float | None, billing: str, measured: Measured | None) -> float | None:
    """USD per hour of serving: of a spot machine its starts are paid too."""
    if usd_per_hour is None or billing != "spot":
        return usd_per_hour
    return expect(measured).effective(usd_per_hour)
