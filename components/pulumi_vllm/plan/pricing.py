"""What a machine costs: the cheapest fitting offer, else a dated table that says so."""

from __future__ import annotations

import functools
import pathlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from pulumi_vllm.plan.offer_choice import OfferRequest, billing_order, matching

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pulumi_vllm.plan.catalogue import Gpu, Measured
    from pulumi_vllm.plan.config import Deployment
    from pulumi_vllm.plan.offer import Offer

HOURS_PER_MONTH = 730
COUNTS = (1, 2, 4, 8)
"""GPUs of the machines that the dated table is asked about."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@functools.cache
def data() -> dict[str, Any]:
    """The assumptions and seen figures of data/prices.yaml."""
    text = (pathlib.Path(__file__).parent / "data" / "prices.yaml").read_text()
    content: dict[str, Any] = yaml.load(text, Loader=_LOADER)  # noqa: S506 - a safe loader
    return content


@dataclass(frozen=True, slots=True)
class Price:
    """USD of the whole machine per hour, None when unknown; `source` says where it is from.

    `billing` is how it is billed at that price: on-demand too where a spot machine's fallback has to do.
    """

    usd_per_hour: float | None
    source: str
    ceiling: float
    billing: str

    def sentence(self) -> str:
        """For a person."""
        if self.usd_per_hour is None:
            return f"Price unknown: {self.source}; the ceiling is ${self.ceiling:.2f}/h."
        month = self.usd_per_hour * HOURS_PER_MONTH
        text = f"${self.usd_per_hour:.2f}/h, ${month:,.0f} per month of 730 h ({self.source})"
        over = f", above the ceiling of ${self.ceiling:.2f}/h" if self.usd_per_hour > self.ceiling else ""
        return f"{text}{over}."


def per_hour(
    deployment: Deployment,
    gpu: Gpu,
    offers: Sequence[Offer] | None,
    dated: str,
    paid: float | None = None,
) -> Price:
    """The price of the machine that the stack file asks for; `offers` None means none were asked for."""
    machine = deployment.machine
    if paid is not None:
        return Price(paid, "as the cloud offers it", machine.max_usd_per_hour, machine.billing)
    missed: list[str] = []
    for billing in billing_order(machine.billing, machine.fallback):
        if offers is None:
            usd = listed(gpu, machine.count, billing)
            source = f"price list of {dated}{' for any region' if machine.region else ''}, not today's offers"
            nothing = f"no {billing} price of {gpu.name} is recorded"
        else:
            found = cheapest(offers, machine.gpu, machine.count, billing, machine.region)
            usd, source = (None, "") if found is None else (found.usd_per_hour, found.place(machine.region))
            source = f"today's cheapest offer, {source}"
            where = f" in {machine.region}" if machine.region else ""
            nothing = f"no {billing} offer of {machine.count}x {machine.gpu} today{where}"
        if usd is not None:
            head = f"{missed[0]}; the fallback, {billing}: " if missed else ""
            return Price(usd, f"{head}{source}", machine.max_usd_per_hour, billing)
        missed.append(nothing)
    return Price(None, " and ".join(missed), machine.max_usd_per_hour, machine.billing)


def listed(gpu: Gpu, count: int, billing: str) -> float | None:
    """The dated table's price of a machine."""
    each = gpu.usd_per_hour.get(billing)
    return None if each is None else round(each * max(1, count), 4)


def cheapest(
    offers: Iterable[Offer], gpu: str, count: int, billing: str, region: str | None = None
) -> Offer | None:
    """Return the cheapest offer of this machine that takes a volume, which every server has."""
    return next(iter(matching(offers, OfferRequest(gpu, count, (billing,), region))), None)


def less(usd_per_hour: float, machine: str, others: Iterable[tuple[float, int, str, str]]) -> str | None:
    """A sentence when one of the others (USD per hour, count, GPU, where the price is from) costs less."""
    usd, count, gpu, source = min(others, default=(usd_per_hour, 0, "", ""))
    if usd >= usd_per_hour:
        return None
    return (
        f"server.machine: {count}x {gpu} does the same for ${usd:.2f}/h ({source}), {machine} costs "
        f"${usd_per_hour:.2f}/h; see `pulumi-vllm recommend`, or keep it if it is for speed"
    )


def storage_per_hour(gigabytes: float) -> float:
    """USD per hour of a volume; it costs that while no machine holds it, too."""
    return float(gigabytes * data()["storage"]["usd_per_gb_hour"])


def storage_per_month(gigabytes: float) -> float:
    """The same for 730 hours."""
    return storage_per_hour(gigabytes) * HOURS_PER_MONTH


@dataclass(frozen=True, slots=True)
class Rate:
    """Output tokens per second with `streams` at once, and the measured numbers of streams that it is from."""

    streams: int
    tokens_per_s: float
    levels: tuple[int, ...]

    def sentence(self) -> str:
        """Where the figure is from."""
        told = f"{self.tokens_per_s:,.0f} output tokens/s at {self.streams} streams"
        if len(self.levels) == 1:
            return f"{told}, measured"
        return f"{told}, on the straight line between those measured at {' and '.join(map(str, self.levels))}"


def rate(measured: Measured | None, sequences: int) -> Rate | None:
    """The rate with so many streams at once; None where nothing as low was measured.

    Between two measured levels it is on the straight line between them, which rather promises too little: each stream
    more adds less than the one before (true of every measured run). Above the highest it is that of the highest.
    """
    told = {} if measured is None else measured.tokens_per_s
    below = max((level for level in told if level <= sequences), default=None)
    above = min((level for level in told if level > sequences), default=None)
    if below is None:
        return None
    if above is None or below == sequences:
        return Rate(below, told[below], (below,))
    part = (sequences - below) / (above - below)
    return Rate(sequences, told[below] + part * (told[above] - told[below]), (below, above))


def per_million(usd_per_hour: float | None, found: Rate | None) -> float | None:
    """USD per million output tokens of a machine that is always that busy."""
    if usd_per_hour is None or found is None:
        return None
    return usd_per_hour / 3600 / found.tokens_per_s * 1e6
