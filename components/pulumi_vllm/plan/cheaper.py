"""Other machines that do the same as a plan's, and whether one costs less."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import catalogue as catalogues
from . import memory, price
from .load import load_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .catalogue import Catalogue
    from .decide import Plan
    from .offer import Offer


def alternatives(decided: Plan, catalogue: Catalogue | None = None) -> tuple[tuple[str, int], ...]:
    """Other machines, GPU and count, that do the same: this precision, and no fewer full requests at once."""
    if decided.memory is None:
        return ()
    known = catalogues.load() if catalogue is None else catalogue
    deployment, model = decided.deployment, decided.model
    enough = min(decided.memory.full_requests, deployment.sequences)
    asked = {"max-model-len": deployment.context, "max-num-seqs": deployment.sequences}
    found = []
    machines = [(gpu, count) for gpu in known.gpus if gpu != "CPU" for count in price.COUNTS]
    for gpu, count in machines:
        if (gpu, count) == (
            deployment.machine.gpu,
            deployment.machine.count,
        ) or model.dimensions.heads % count:
            continue
        flags = {**decided.engine.flags, **deployment.engine.flags, **asked, "tensor-parallel-size": count}
        load = load_of(flags, decided.engine, model.maximum_context)
        precision = model.precisions[decided.precision]
        other = memory.settled(model.dimensions, precision, decided.engine, known.gpus[gpu], load)
        if other.fits and min(other.full_requests, deployment.sequences) >= enough:
            found.append((gpu, count))
    return tuple(found)


def cheaper(decided: Plan, offers: Sequence[Offer] | None = None) -> str | None:
    """A sentence when another machine does the same for less, by the offers or by the dated prices."""
    if decided.usd_per_hour is None:
        return None
    known, machine = catalogues.load(), decided.deployment.machine
    priced = []
    for gpu, count in alternatives(decided):
        if offers is None:
            usd, source = price.listed(known.gpus[gpu], count, machine.billing), "price list"
        else:
            offer = price.cheapest(offers, gpu, count, machine.billing)
            usd, source = (None, "") if offer is None else (offer.usd_per_hour, offer.provider)
        if usd is not None:
            priced.append((usd, count, gpu, source))
    return price.less(decided.usd_per_hour, f"{machine.count}x {machine.gpu}", priced)
