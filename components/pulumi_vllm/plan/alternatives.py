"""Other machines that do the same as a plan's, and whether one costs less."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulumi_vllm.plan import catalogue as catalogues
from pulumi_vllm.plan import pricing as price
from pulumi_vllm.plan.errors import PlanError
from pulumi_vllm.plan.planner import plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pulumi_vllm.plan.catalogue import Catalogue
    from pulumi_vllm.plan.config import Deployment
    from pulumi_vllm.plan.memory import Budget
    from pulumi_vllm.plan.offer import Offer
    from pulumi_vllm.plan.planner import Plan


def alternatives(decided: Plan, catalogue: Catalogue | None = None) -> tuple[tuple[str, int], ...]:
    """Other machines, GPU and count, that do the same: this precision, and no fewer full requests at once.

    Each is a plan of the same stack file with only the machine changed, so that a flag or a version of the user's
    own counts there too, and what the plan would refuse is not among them.
    """
    if decided.memory is None:
        return ()
    known = catalogues.load() if catalogue is None else catalogue
    deployment = decided.deployment
    here = deployment.machine.gpu, deployment.machine.count
    enough = min(decided.memory.full_requests, deployment.sequences)
    found = []
    for gpu, count in ((gpu, count) for gpu in known.gpus if gpu != "CPU" for count in price.COUNTS):
        other = None if (gpu, count) == here else _moved(deployment, gpu, count, known)
        if other is not None and min(other.full_requests, deployment.sequences) >= enough:
            found.append((gpu, count))
    return tuple(found)


def _moved(deployment: Deployment, gpu: str, count: int, known: Catalogue) -> Budget | None:
    """The memory of the same deployment on another machine; None where the plan refuses it."""
    machine = deployment.machine.model_copy(update={"gpu": gpu, "count": count})
    flags = {**deployment.engine.flags}
    if flags.get("tensor-parallel-size") == deployment.machine.count:
        del flags["tensor-parallel-size"]  # as many as the machine has, here and there
    engine = deployment.engine.model_copy(update={"flags": flags})
    try:
        return plan(
            deployment.model_copy(update={"machine": machine, "engine": engine}), catalogue=known
        ).memory
    except PlanError:
        return None


def cheaper(decided: Plan, offers: Sequence[Offer] | None = None) -> str | None:
    """A sentence when another machine does the same for less, by the offers of its region or by the dated prices."""
    if decided.usd_per_hour is None:
        return None
    known, deployment = catalogues.load(), decided.deployment
    machine, priced = deployment.machine, []
    for gpu, count in alternatives(decided):
        moved = deployment.model_copy(
            update={"machine": machine.model_copy(update={"gpu": gpu, "count": count})}
        )
        cost = price.per_hour(moved, known.gpus[gpu], offers, known.prices_from)
        if cost.usd_per_hour is not None:
            priced.append((cost.usd_per_hour, count, gpu, cost.source))
    return price.less(decided.usd_per_hour, f"{machine.count}x {machine.gpu}", priced)
