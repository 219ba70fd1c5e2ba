"""Today's offers for the machine that a resource's inputs describe."""

import os
from typing import TYPE_CHECKING

from pulumi_vllm.plan.offer_choice import OfferRequest, billing_order, choose
from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.resource import Values

if TYPE_CHECKING:
    from pulumi_vllm.plan.offer import Offer

_ON_DEMAND_FIRST = "PULUMI_VLLM_ON_DEMAND_FIRST"
"""URN of an instance for which `pulumi-vllm reconcile` prefers the fallback billing in this run."""


def wanted_gpus(inputs: Values) -> tuple[str, ...]:
    """Return the GPUs that a resource's inputs accept, the preferred one first."""
    return (inputs["gpu"], *(inputs.get("otherGpus") or ()))


async def find_offers(call: Call, inputs: Values, *, with_volume: bool) -> "list[Offer]":
    """Return the offers that match, best first.

    Raises:
        NoOfferError: none matches.
    """
    billings = billing_order(inputs.get("billing") or "on-demand", inputs.get("fallback"))
    if os.environ.get(_ON_DEMAND_FIRST) == call.urn:
        billings = billings[::-1]
    request = OfferRequest(
        gpus=wanted_gpus(inputs),
        count=inputs["count"],
        billings=billings,
        region=inputs.get("region"),
        provider=inputs.get("provider"),
        max_usd_per_hour=inputs.get("maxUsdPerHour"),
        with_volume=with_volume,
    )
    return choose(await call.session.ask(call.session.cloud().offers.list), request)
