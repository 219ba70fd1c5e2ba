"""What would hold a stack that does not fit: another precision here, or the cheapest other machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pulumi_vllm.plan import memory
from pulumi_vllm.plan import pricing as price
from pulumi_vllm.plan.engine_arguments import load_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pulumi_vllm.plan.catalogue import Catalogue, Gpu, Precision
    from pulumi_vllm.plan.config import Deployment
    from pulumi_vllm.plan.selection import Selection


def nearest(
    deployment: Deployment, choice: Selection, flags: Mapping[str, Any], known: Catalogue
) -> tuple[str, ...]:
    """The nearest things that fit, in words that follow "use"; by the dated prices: a refusal needs no network."""
    here = choice.gpu, deployment.machine.count
    found = [
        f"precision {precision.name} here"
        for precision in choice.model.precisions.values()
        if precision is not choice.precision and _fits(choice, flags, precision, *here)
    ]
    machines = sorted(_machines(deployment, choice, flags, known))
    if machines:
        usd, count, gpu = machines[0]
        found.append(f"{count}x {gpu} (${usd:.2f}/h)")
    return tuple(found)


def _machines(
    deployment: Deployment, choice: Selection, flags: Mapping[str, Any], known: Catalogue
) -> Iterator[tuple[float, int, str]]:
    for gpu in known.gpus.values():
        for count in price.COUNTS if gpu.name != "CPU" else ():
            usd = price.listed(gpu, count, deployment.machine.billing)
            if usd is not None and _fits(choice, flags, choice.precision, gpu, count):
                yield usd, count, gpu.name


def _fits(choice: Selection, flags: Mapping[str, Any], precision: Precision, gpu: Gpu, count: int) -> bool:
    if choice.model.dimensions.heads % count:
        return False
    load = load_of({**flags, "tensor-parallel-size": count}, choice.engine, choice.model.maximum_context)
    return memory.settled(choice.model.dimensions, precision, choice.engine, gpu, load).fits
