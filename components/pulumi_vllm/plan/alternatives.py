"""Other machines with the capacity of a plan's machine, and whether one of them costs less."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulumi_vllm.plan import catalogue as catalogues
from pulumi_vllm.plan import pricing
from pulumi_vllm.plan.errors import PlanError
from pulumi_vllm.plan.planner import plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pulumi_vllm.plan.catalogue import Catalogue
    from pulumi_vllm.plan.config import Deployment
    from pulumi_vllm.plan.offer import Offer
    from pulumi_vllm.plan.planner import Plan


def alternatives(decided: Plan, catalogue: Catalogue | None = None) -> tuple[tuple[str, int], ...]:
    """Other machines, as GPU and count, that serve at least as many full-length requests in this precision.

    Each is a plan of the same stack file with another machine. The user's own flags and version count there too, and a
    machine that the plan refuses is not an alternative.
    """
    if decided.memory is None or decided.deployment.machine.is_own:
        return ()
    known = catalogues.load() if catalogue is None else catalogue
    deployment = decided.deployment
    here = deployment.machine.gpu, deployment.machine.count
    enough = min(decided.full_requests, deployment.sequences)
    found = []
    # A capacity that nothing supports is no reason to change the machine.
    gpus = [name for name, gpu in known.gpus.items() if gpu.measured or name == here[0]]
    for machine in ((gpu, count) for gpu in gpus for count in catalogues.GPU_COUNTS):
        other = None if machine == here else _plan_on(machine, deployment, known)
        if other is None or other.memory is None:
            continue
        known_here = set(other.memory.unverified) <= set(decided.memory.unverified)
        if known_here and min(other.full_requests, deployment.sequences) >= enough:
            found.append(machine)
    return tuple(found)


def cheaper_alternative(decided: Plan, offers: Sequence[Offer] | None = None) -> str | None:
    """A message if an alternative costs less, by the offers of the stack's region or by the dated price list."""
    if decided.usd_per_hour is None:
        return None
    known, deployment = catalogues.load(), decided.deployment
    machine, priced = deployment.machine, []
    for gpu, count in alternatives(decided):
        other = machine.model_copy(update={"gpus": (gpu,), "count": count})
        price = pricing.machine_price(
            deployment.model_copy(update={"machine": other}), known.gpus[gpu], offers, known.prices_from
        )
        if price.usd_per_hour is not None:
            priced.append((price.usd_per_hour, count, gpu, price.source))
    return pricing.cheaper_message(decided.usd_per_hour, machine.named, priced)


def _plan_on(machine: tuple[str, int], deployment: Deployment, known: Catalogue) -> Plan | None:
    """The plan of the same deployment on another machine; None if it is refused."""
    gpu, count = machine
    engines = deployment.machine.engines
    flags = {**deployment.engine.flags}
    if flags.get("tensor-parallel-size") == deployment.machine.count:
        del flags["tensor-parallel-size"]  # it means all GPUs, here as there
    changes = {
        "machine": deployment.machine.model_copy(
            update={"gpus": (gpu,), "count": count, "engines": None if count % (engines or 1) else engines}
        ),
        "engine": deployment.engine.model_copy(update={"flags": flags}),
    }
    try:
        return plan(deployment.model_copy(update=changes), catalogue=known)
    except PlanError:
        return None
