"""Every machine that can serve a request for capacity, cheapest first, and why the others cannot."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pulumi_vllm.plan import catalogue as catalogues
from pulumi_vllm.plan import engine_rates, price_comparison, pricing, spot_pricing, token_prices
from pulumi_vllm.plan.config import LARGEST_VOLUME_GB, Deployment
from pulumi_vllm.plan.errors import ConfigError, PlanError
from pulumi_vllm.plan.machine_config import HIGHEST_CEILING_USD
from pulumi_vllm.plan.planner import Plan, plan
from pulumi_vllm.plan.separate_servers import SeparateServer, separate_servers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pulumi_vllm.plan.catalogue import Catalogue
    from pulumi_vllm.plan.offer import Offer


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person needs. `full_length`: all requests may have the full context at the same time.

    `mix` are the requests for which tokens are priced.
    """

    model: str
    context: int
    concurrency: int
    precision: str | None = None
    billings: tuple[str, ...] = ("on-demand",)
    max_usd_per_hour: float | None = None
    full_length: bool = False
    interruptions_per_day: float | None = None
    cold_start_min: float | None = None
    gpu: str | None = None
    count: int | None = None
    region: str | None = None
    mix: token_prices.Mix = token_prices.MEASURED


@dataclass(frozen=True, slots=True)
class Fitting:
    """A machine that can serve the wish. `usd_per_serving_hour` includes the starts of spot machines.

    `usd_per_million_output_tokens` is that of the wish's mix on a machine that is always busy. `token_price` has what
    it costs at a lower utilization, and is a clause that says why where that is unknown.

    Rate and cache are those of all `engines` that share the machine. `engine` is the version of vLLM.
    `measured` is yes (exactly these flags were started), "other flags", or no. `rate_from_streams` holds the measured
    concurrency levels from which the price of tokens is derived: one, or the two nearest (see `pricing.rate`).
    `findings` are what to know before choosing the row.
    """

    gpu: str
    count: int
    engines: int
    engine: str
    precision: str
    billing: str
    usd_per_hour: float
    usd_per_month: float
    usd_per_serving_hour: float
    usd_per_million_output_tokens: float | None
    token_price: token_prices.TokenPrice | str
    rate_from_streams: tuple[int, ...]
    storage_usd_per_month: float
    availability: float
    kv_cache_tokens: int
    full_requests: float
    tokens_per_request: int
    measured: str
    source: str
    findings: tuple[str, ...]

    @property
    def usd_per_hour_of_load(self) -> float:
        """USD per hour of as many such machines as the mix's requests per second need; infinite if nobody knows."""
        price = self.token_price
        if isinstance(price, str):
            return math.inf
        return self.usd_per_serving_hour * (price.machines or 1)


@dataclass(frozen=True, slots=True)
class Refused:
    """A machine that cannot, and why; `billing` is None if no kind of billing would help."""

    machine: str
    precision: str | None
    billing: str | None
    why: str


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The result, cheapest machine first; `prices` says where the prices come from."""

    prices: str
    fitting: tuple[Fitting, ...]
    refused: tuple[Refused, ...]
    separate: tuple[price_comparison.Separate, ...]
    separate_servers: tuple[SeparateServer, ...]
    spot_then_and_now: str


def recommend(
    wish: Wish, offers: Sequence[Offer] | None = None, catalogue: Catalogue | None = None
) -> Recommendation:
    """Plan the wish on every machine on offer, or in the dated price list if `offers` is None.

    Raises:
        ConfigError: the wish itself is invalid; with every error in it.
    """
    known = catalogues.load() if catalogue is None else catalogue
    check(wish, known)
    model = known.models[wish.model]
    precisions = tuple(model.precisions) if wish.precision is None else (wish.precision,)
    rows: list[Fitting | Refused] = []
    machines = _machines(wish, offers, known)
    if wish.gpu is not None and not machines:
        rows.append(Refused(wish.gpu, None, None, _why_none(wish.gpu, offers, known)))
    for gpu, count in machines:
        if gpu not in known.gpus:
            rows.append(Refused(gpu, None, None, "is not in the catalogue, so its memory is unknown"))
            continue
        for precision in precisions:
            for engines in _engines(wish, gpu, count, precision, known):
                rows += _try(wish, gpu, count, precision, engines, offers, known)
    fitting = [row for row in rows if isinstance(row, Fitting)]
    fitting.sort(key=lambda row: _cheapest_first(row, wish))
    listed = (
        f"price list of {known.prices_from}{' for any region' if wish.region else ''}, not today's offers"
    )
    prices = listed if offers is None else "today's offers"
    refused = tuple(row for row in rows if isinstance(row, Refused))
    each = price_comparison.separate_machine()
    return Recommendation(
        prices,
        tuple(fitting),
        refused,
        price_comparison.separate(offers, _held_by(each, wish, precisions, known)),
        separate_servers(wish.context, wish.concurrency, offers, known),
        price_comparison.spot_then_and_now(
            offers, known.gpus["H200"].usd_per_hour.get("spot"), known.prices_from
        ),
    )


def _cheapest_first(row: Fitting, wish: Wish) -> tuple[float, float, int, str, str, float, int]:
    """Cheapest machine first, and of two divisions of one machine the one with the cheaper tokens.

    Where the requests per second are known, the cheapest number of machines that answers them is first.
    """
    million = row.usd_per_million_output_tokens
    return (
        0.0 if wish.mix.requests_per_s is None else row.usd_per_hour_of_load,
        row.usd_per_serving_hour,
        row.count,
        row.gpu,
        row.precision,
        float("inf") if million is None else million,
        row.engines,
    )


def _engines(wish: Wish, gpu: str, count: int, precision: str, known: Catalogue) -> tuple[int, ...]:
    """The numbers of engines to compare on a machine: one, and those that were measured there.

    Several are compared only where they were measured to be faster, because one engine has the larger cache.
    """
    engine = known.default_engine(known.gpus[gpu]).version
    machine = (wish.model, precision, engine, gpu, count)
    measured = engine_rates.measured_rates(known.measured, machine, wish.concurrency)
    one = measured.get(1)
    faster = (
        several
        for several, rate in sorted(measured.items())
        if several > 1 and (one is None or rate.tokens_per_s > one.tokens_per_s)
    )
    return (1, *faster)


def _held_by(machine: tuple[str, int], wish: Wish, precisions: tuple[str, ...], known: Catalogue) -> str:
    """What a separate server holds of the request: context and concurrency, in the first precision that fits it."""
    gpu, count = machine
    name = f"each {count}x {gpu}"
    for precision in precisions:
        try:
            decided = plan(_deployment(wish, gpu, count, precision, known), catalogue=known)
        except PlanError:
            continue
        assert decided.memory is not None  # noqa: S101 - a GPU has a budget
        return (
            f"{name} holds {wish.model} in {precision} with {decided.memory.kv_tokens:,} KV tokens, which is "
            f"{decided.memory.full_requests:.1f} requests of {wish.context:,} tokens at once"
        )
    return f"{name} does not hold {wish.model} with {wish.context:,} tokens in any precision asked for"


def check(wish: Wish, known: Catalogue) -> None:
    """Refuse a wish that is invalid on every machine, and name the options instead of the keys.

    Raises:
        ConfigError: with every error in it.
    """
    gpu = next(name for name in known.gpus if name != catalogues.CPU)
    try:
        _deployment(wish, gpu, 1, wish.precision, known)
    except ConfigError as error:
        options = (f"--{message.removeprefix('server.')}" for message in error.errors)
        raise ConfigError(tuple(options)) from None


def _deployment(  # noqa: PLR0917 (a wish, a machine and its division)
    wish: Wish, gpu: str, count: int, precision: str | None, known: Catalogue, engines: int = 1
) -> Deployment:
    return Deployment.parse(
        {
            "model": wish.model,
            "precision": precision,
            "context": wish.context,
            "concurrency": wish.concurrency,
            "machine": {
                "gpu": gpu,
                "count": count,
                "engines": engines,
                "max_usd_per_hour": HIGHEST_CEILING_USD,
            },
            "storage": LARGEST_VOLUME_GB,
        },
        known,
    )


def _machines(wish: Wish, offers: Sequence[Offer] | None, known: Catalogue) -> list[tuple[str, int]]:
    """Machines to try that the wish allows."""
    return [
        (gpu, count)
        for gpu, count in _offered(offers, known)
        if wish.gpu in {None, gpu} and (wish.count is None or count in {0, wish.count})
    ]


def _why_none(gpu: str, offers: Sequence[Offer] | None, known: Catalogue) -> str:
    """Why there is no machine with a GPU to try."""
    if offers is not None:
        return "is not on offer with what the options ask for; --offline computes with list prices"
    if not known.gpus[gpu].usd_per_hour:
        return "has no list price; usd_per_hour in a GPU file names one"
    return "has no machine with what the options ask for"


def _offered(offers: Sequence[Offer] | None, known: Catalogue) -> list[tuple[str, int]]:
    """Machines on offer. Those without a GPU are left out, because they only serve the local cloud's tiny model."""
    if offers is None:
        return [
            (name, count)
            for name, gpu in known.gpus.items()
            if name != catalogues.CPU and gpu.usd_per_hour
            for count in catalogues.GPU_COUNTS
        ]
    offered = {(offer.gpu, offer.gpu_count) for offer in offers if offer.gpu_count > 0}
    unknown = {(gpu, 0) for gpu, _ in offered if gpu not in known.gpus}
    return sorted(unknown | {(gpu, count) for gpu, count in offered if gpu in known.gpus})


def _try(  # noqa: PLR0917 (a wish, a machine and its division, and the two sources of data)
    wish: Wish,
    gpu: str,
    count: int,
    precision: str,
    engines: int,
    offers: Sequence[Offer] | None,
    known: Catalogue,
) -> Iterator[Fitting | Refused]:
    machine = f"{count}x {gpu}{f' with {engines} engines' if engines > 1 else ''}"
    try:
        decided = plan(_deployment(wish, gpu, count, precision, known, engines), catalogue=known)
    except PlanError as error:
        yield Refused(machine, precision, None, " ".join(error.errors))
        return
    assert decided.memory is not None  # noqa: S101 - a GPU has a budget
    if wish.full_length and decided.full_requests < wish.concurrency:
        why = f"{decided.full_requests:.1f} requests of {wish.context:,} tokens fit at once"
        yield Refused(machine, precision, None, f"{why}, not {wish.concurrency}")
        return
    for billing in wish.billings:
        yield _priced(wish, decided, billing, offers, known)


def _priced(
    wish: Wish, decided: Plan, billing: str, offers: Sequence[Offer] | None, known: Catalogue
) -> Fitting | Refused:
    gpu, count = decided.deployment.machine.gpu, decided.deployment.machine.count
    machine = f"{count}x {gpu}"
    usd, source = _price(gpu, count, billing, wish.region, offers, known)
    if usd is None:
        return Refused(machine, decided.precision, billing, source)
    if wish.max_usd_per_hour is not None and usd > wish.max_usd_per_hour:
        why = f"${usd:.2f}/h is above ${wish.max_usd_per_hour:.2f}/h"
        on_spot, _ = _price(gpu, count, "spot", wish.region, offers, known)
        if "spot" not in wish.billings and on_spot is not None and on_spot <= wish.max_usd_per_hour:
            why += f"; on spot it costs ${on_spot:.2f}/h, add --spot"
        return Refused(machine, decided.precision, billing, why)
    spot = spot_pricing.expected(decided.measured_run, wish.interruptions_per_day, wish.cold_start_min)
    serving, availability = (spot.effective(usd), spot.availability) if billing == "spot" else (usd, 1.0)
    token_price = token_prices.token_price(decided, wish.mix, serving)
    million, levels = _per_million(wish, decided, token_price, serving)
    return Fitting(
        gpu=gpu,
        count=count,
        engines=decided.engines,
        engine=decided.engine.version,
        precision=decided.precision,
        billing=billing,
        usd_per_hour=usd,
        usd_per_month=round(usd * pricing.HOURS_PER_MONTH, 2),
        usd_per_serving_hour=serving,
        usd_per_million_output_tokens=million,
        token_price=token_price,
        rate_from_streams=levels,
        storage_usd_per_month=round(pricing.storage_per_month(decided.disk_gib * 2**30 / 1e9), 2),
        availability=availability,
        kv_cache_tokens=decided.kv_tokens,
        full_requests=round(decided.full_requests, 2),
        tokens_per_request=decided.kv_tokens // wish.concurrency,
        measured=decided.measured,
        source=source,
        findings=tuple(_to_know(wish, decided)),
    )


def _per_million(
    wish: Wish, decided: Plan, price: token_prices.TokenPrice | str, usd_per_serving_hour: float
) -> tuple[float | None, tuple[int, ...]]:
    """USD per million output tokens of a machine that is always busy, and the streams that its rate comes from.

    The measured load has a price without a measured rate of prompts too.
    """
    if not isinstance(price, str):
        return price.usd_per_million_output(), price.levels
    if not wish.mix.is_measured or decided.rate is None:
        return None, ()
    return pricing.per_million(usd_per_serving_hour, decided.rate), decided.rate.levels


def _price(  # noqa: PLR0917 (a machine, a place, and the two sources of data)
    gpu: str, count: int, billing: str, region: str | None, offers: Sequence[Offer] | None, known: Catalogue
) -> tuple[float | None, str]:
    """USD per hour and the place of the cheapest offer, or why there is none."""
    if offers is None:
        usd = pricing.list_price(known.gpus[gpu], count, billing)
        source = f"price list of {known.prices_from}{' for any region' if region else ''}"
        return usd, source if usd is not None else f"no {billing} price is recorded"
    found = pricing.cheapest(offers, gpu, count, billing, region)
    if found is None:
        return None, f"no {billing} offer today{f' in {region}' if region else ''}"
    return found.usd_per_hour, found.place(region)


def _to_know(wish: Wish, decided: Plan) -> Iterator[str]:
    """What to know before choosing a machine: requests that wait, and the linter's findings."""
    assert decided.memory is not None  # noqa: S101 - checked by the caller
    if decided.engines > 1:
        yield (
            f"a request lies in one engine's KV cache of {decided.memory.kv_tokens:,} tokens, and an engine that fails "
            "ends only its own requests"
        )
    if decided.full_requests < wish.concurrency:
        yield (
            f"overcommitted: {wish.concurrency} requests fit at once if each has at most "
            f"{decided.kv_tokens // wish.concurrency:,} of {wish.context:,} tokens; with longer ones some wait"
        )
    for finding in decided.findings:
        yield f"{finding.severity} ({finding.rule}): {finding.message}"
