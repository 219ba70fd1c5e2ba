"""The tutorial's separate servers, one for each model, as each would really run: what it holds, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pulumi_vllm.plan import catalogue as catalogues
from pulumi_vllm.plan import pricing
from pulumi_vllm.plan.config import LARGEST_VOLUME_GB, Deployment
from pulumi_vllm.plan.errors import PlanError
from pulumi_vllm.plan.machine_config import HIGHEST_CEILING_USD
from pulumi_vllm.plan.planner import plan

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pulumi_vllm.plan.catalogue import Catalogue, Model
    from pulumi_vllm.plan.memory import Budget
    from pulumi_vllm.plan.offer import Offer


@dataclass(frozen=True, slots=True)
class SeparateServer:
    """One model on the tutorial's machine, or on the cheapest that holds a request of `context` tokens.

    `context` is the asked one or the model's own limit. Without a machine, all figures are None. `as_in_tutorial` is
    false where the tutorial's machine does not hold the model. Figures are computed; no such server was started.
    """

    model: str
    context: int
    as_in_tutorial: bool = False
    machine: str | None = None
    precision: str | None = None
    usd_per_hour: float | None = None
    kv_cache_tokens: int | None = None
    full_requests: float | None = None


def separate_servers(
    context: int, concurrency: int, offers: Sequence[Offer] | None, known: Catalogue
) -> tuple[SeparateServer, ...]:
    """A server for each of the tutorial's models, on demand, at today's offers or by the dated price list."""
    tutorial = pricing.assumptions()["separate"]
    usual = (tutorial["gpu"], tutorial["count"])
    found = []
    for name in tutorial["models"]:
        model = known.models[name]
        own = min(context, model.maximum_context)
        here = next(_on(usual, model, own, concurrency, offers, known), None)
        if here is None:
            machines = [
                (gpu, count)
                for gpu in known.gpus
                for count in catalogues.GPU_COUNTS
                if gpu != catalogues.CPU and _has_price(gpu, count, offers, known)
            ]
            every = (
                one for machine in machines for one in _on(machine, model, own, concurrency, offers, known)
            )
            priced = [one for one in every if one.usd_per_hour is not None]
            here = min(priced, key=lambda one: one.usd_per_hour or 0.0, default=SeparateServer(name, own))
        found.append(here)
    return tuple(found)


def _has_price(gpu: str, count: int, offers: Sequence[Offer] | None, known: Catalogue) -> bool:
    if offers is None:
        return bool(known.gpus[gpu].usd_per_hour)
    return any((offer.gpu, offer.gpu_count) == (gpu, count) for offer in offers)


def together(servers: Sequence[SeparateServer]) -> float | None:
    """USD per hour of all of them; None if one has no price."""
    prices = [one.usd_per_hour for one in servers]
    return None if None in prices else round(sum(price for price in prices if price is not None), 4)


def _on(  # noqa: PLR0917 (a machine, a model, a load, and the two sources of data)
    machine: tuple[str, int],
    model: Model,
    context: int,
    concurrency: int,
    offers: Sequence[Offer] | None,
    known: Catalogue,
) -> Iterator[SeparateServer]:
    """The model on a machine, in each precision in which it fits."""
    gpu, count = machine
    if gpu not in known.gpus:
        return
    for precision in model.precisions:
        memory = _memory(machine, model, precision, context, concurrency, known)
        if memory is None:
            continue
        if offers is None:
            usd = pricing.list_price(known.gpus[gpu], count, "on-demand")
        else:
            offer = pricing.cheapest(offers, gpu, count, "on-demand")
            usd = None if offer is None else offer.usd_per_hour
        tutorial = pricing.assumptions()["separate"]
        yield SeparateServer(
            model.name,
            context,
            machine == (tutorial["gpu"], tutorial["count"]),
            f"{count}x {gpu}",
            precision,
            usd,
            memory.kv_tokens,
            round(memory.full_requests, 2),
        )


def _memory(  # noqa: PLR0917 (as above)
    machine: tuple[str, int], model: Model, precision: str, context: int, concurrency: int, known: Catalogue
) -> Budget | None:
    gpu, count = machine
    block = {
        "model": model.name,
        "precision": precision,
        "context": context,
        "concurrency": concurrency,
        "machine": {"gpu": gpu, "count": count, "max_usd_per_hour": HIGHEST_CEILING_USD},
        "storage": LARGEST_VOLUME_GB,
    }
    try:
        return plan(Deployment.parse(block, known), catalogue=known).memory
    except PlanError:
        return None
