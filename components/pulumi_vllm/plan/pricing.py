"""What a machine costs, by today's offers or by the dated price list, and what its output tokens cost."""

from __future__ import annotations

import functools
import pathlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from pulumi_vllm.plan import yaml_text
from pulumi_vllm.plan.offer_choice import OfferRequest, billing_order, matching

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pulumi_vllm.plan.catalogue import Gpu, Measured
    from pulumi_vllm.plan.config import Deployment
    from pulumi_vllm.plan.offer import Offer

HOURS_PER_MONTH = 730
MEASURED_INPUT, MEASURED_OUTPUT = 512, 256
MEASURED_LOAD = f"{MEASURED_INPUT} tokens in and {MEASURED_OUTPUT} out"
"""Load of every measured rate that `plan` reads (lab/gpu/compact.py)."""


@functools.cache
def assumptions() -> dict[str, Any]:
    """Assumptions and published prices of data/prices.yaml."""
    path = pathlib.Path(__file__).parent / "data" / "prices.yaml"
    return cast("dict[str, Any]", yaml_text.load(path.read_text(), path.name))


@dataclass(frozen=True, slots=True)
class Price:
    """USD per hour of the whole machine, None if unknown, and where the price comes from.

    `billing` is the billing at that price. It is on-demand if a spot machine's fallback is the only one on offer.
    """

    usd_per_hour: float | None
    source: str
    ceiling: float
    billing: str

    def sentence(self) -> str:
        """The price as a sentence."""
        if self.usd_per_hour is None:
            return f"Price unknown: {self.source}; the ceiling is ${self.ceiling:.2f}/h."
        month = self.usd_per_hour * HOURS_PER_MONTH
        text = f"${self.usd_per_hour:.2f}/h, ${month:,.0f} per month of 730 h ({self.source})"
        over = f", above the ceiling of ${self.ceiling:.2f}/h" if self.usd_per_hour > self.ceiling else ""
        return f"{text}{over}."


def machine_price(
    deployment: Deployment,
    gpu: Gpu,
    offers: Sequence[Offer] | None,
    dated: str,
    paid: float | None = None,
) -> Price:
    """The price of the machine that a stack file asks for.

    Args:
        deployment: the stack file.
        gpu: the machine's GPU.
        offers: today's offers; None uses the dated price list.
        dated: the date of the price list.
        paid: USD per hour as the cloud offers it, once a machine is rented.
    """
    machine = deployment.machine
    if machine.usd_per_hour is not None:
        return Price(machine.usd_per_hour, "server.machine.usd_per_hour", machine.ceiling, machine.billing)
    if paid is not None:
        return Price(paid, "as the cloud offers it", machine.ceiling, machine.billing)
    missing: list[str] = []
    for billing in billing_order(machine.billing, machine.fallback):
        if offers is None:
            usd = list_price(gpu, machine.count, billing)
            source = f"price list of {dated}{' for any region' if machine.region else ''}, not today's offers"
            reason = f"no {billing} price of {gpu.name} is recorded"
        else:
            found = cheapest(offers, machine.gpu, machine.count, billing, machine.region)
            usd, source = (None, "") if found is None else (found.usd_per_hour, found.place(machine.region))
            source = f"today's cheapest offer, {source}"
            where = f" in {machine.region}" if machine.region else ""
            reason = f"no {billing} offer of {machine.named} today{where}"
        if usd is not None:
            head = f"{missing[0]}; the fallback, {billing}: " if missing else ""
            return Price(usd, f"{head}{source}", machine.ceiling, billing)
        missing.append(reason)
    return Price(None, " and ".join(missing), machine.ceiling, machine.billing)


def list_price(gpu: Gpu, count: int, billing: str) -> float | None:
    """The price of a machine in the dated price list."""
    each = gpu.usd_per_hour.get(billing)
    return None if each is None else round(each * max(1, count), 4)


def cheapest(
    offers: Iterable[Offer], gpu: str, count: int, billing: str, region: str | None = None
) -> Offer | None:
    """The cheapest offer of this machine that accepts a volume, which every server has."""
    return next(iter(matching(offers, OfferRequest((gpu,), count, (billing,), region))), None)


def cheaper_message(
    usd_per_hour: float, machine: str, others: Iterable[tuple[float, int, str, str]]
) -> str | None:
    """A message if one of the others (USD per hour, count, GPU, source of the price) costs less."""
    usd, count, gpu, source = min(others, default=(usd_per_hour, 0, "", ""))
    if usd >= usd_per_hour:
        return None
    return (
        f"server.machine: {count}x {gpu} has the same capacity for ${usd:.2f}/h ({source}), {machine} costs "
        f"${usd_per_hour:.2f}/h; run `pulumi-vllm recommend` to compare, or keep {machine} for its speed"
    )


def storage_per_hour(gigabytes: float) -> float:
    """USD per hour of a volume, attached or not."""
    return float(gigabytes * assumptions()["storage"]["usd_per_gb_hour"])


def storage_per_month(gigabytes: float) -> float:
    """USD of a volume for 730 hours."""
    return storage_per_hour(gigabytes) * HOURS_PER_MONTH


def scheduled(deployment: Deployment, usd_per_hour: float | None) -> dict[str, float | None]:
    """Hours and price of a month by the stack file's schedule, the kept volume included. Empty without a schedule."""
    hours = deployment.schedule.hours_per_month
    if hours is None:
        return {}
    storage = storage_per_month(deployment.storage_gb)
    return {
        "scheduled_hours_per_month": round(hours, 1),
        "scheduled_usd_per_month": None if usd_per_hour is None else round(hours * usd_per_hour + storage, 2),
    }


@dataclass(frozen=True, slots=True)
class Rate:
    """Output tokens per second at a number of streams, and the measured levels that it is derived from."""

    streams: int
    tokens_per_s: float
    levels: tuple[int, ...]

    @property
    def load(self) -> str:
        """What the rate, and a price that is computed from it, are for."""
        return f"{self.streams} stream{'' if self.streams == 1 else 's'}, {MEASURED_LOAD}"

    def sentence(self) -> str:
        """The rate with its source."""
        rate = f"{self.tokens_per_s:,.0f} output tokens/s at {self.load}"
        if len(self.levels) == 1:
            return f"{rate}, measured"
        return f"{rate}, interpolated between those measured at {' and '.join(map(str, self.levels))}"


def rate(measured: Measured | None, sequences: int) -> Rate | None:
    """The output rate at a number of concurrent streams; None if no level as low was measured.

    It is linearly interpolated between the two nearest measured concurrency levels. That is a slight underestimate,
    since throughput was concave in every measured run. Above the highest level, it is the rate of the highest.
    """
    rates = {} if measured is None else measured.tokens_per_s
    below = max((level for level in rates if level <= sequences), default=None)
    above = min((level for level in rates if level > sequences), default=None)
    if below is None:
        return None
    if above is None or below == sequences:
        return Rate(below, rates[below], (below,))
    part = (sequences - below) / (above - below)
    return Rate(sequences, rates[below] + part * (rates[above] - rates[below]), (below, above))


def at_once(sequences: int, tokens: int, kv_tokens: int, engines: int) -> int:
    """Requests of so many tokens that a stack serves at once: its places, or fewer if the caches hold fewer.

    Args:
        sequences: places of all engines together.
        tokens: those of a request, which lies in the cache of one engine.
        kv_tokens: what the cache of each engine holds.
        engines: how many there are.
    """
    return min(sequences, kv_tokens // tokens * engines)


def per_million(usd_per_hour: float | None, found: Rate | None) -> float | None:
    """USD per million output tokens of a machine that always has that rate."""
    if usd_per_hour is None or found is None:
        return None
    return usd_per_hour / 3600 / found.tokens_per_s * 1e6
