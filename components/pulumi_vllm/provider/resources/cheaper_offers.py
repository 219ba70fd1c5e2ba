"""A preview's warning that an equivalent machine is offered for less than the chosen one."""

from typing import TYPE_CHECKING

from pulumi_vllm.plan.offer_choice import OfferRequest, matching
from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.resource import Values

if TYPE_CHECKING:
    from pulumi_vllm.plan.offer import Offer


async def warn_if_cheaper(call: Call, new: Values, chosen: "Offer") -> None:
    """Compare the chosen offer with today's offers of the machines in `alternatives` (such as "1x H200").

    The alternatives have the same billing, and the same provider and region where a volume exists already.
    """
    machines = [machine.partition("x ") for machine in new.get("alternatives") or ()]
    if not machines:
        return
    # YAML takes 0.07 s of the plugin's start.
    from pulumi_vllm.plan import pricing

    region, priced = new.get("region"), []
    offers = await call.session.ask(call.session.cloud().offers.list)
    for count, _, gpu in machines:
        request = OfferRequest(
            (gpu,), int(count), (chosen.billing,), region=region, provider=new.get("provider")
        )
        best = next(iter(matching(offers, request)), None)
        if best is not None:
            priced.append((best.usd_per_hour, int(count), gpu, best.place(region)))
    warning = pricing.cheaper_message(chosen.usd_per_hour, f"{new['count']}x {chosen.gpu}", priced)
    if warning:
        await call.warn(warning)
