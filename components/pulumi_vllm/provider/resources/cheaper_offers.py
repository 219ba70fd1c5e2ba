"""Says in a preview that another machine, which does the same, is offered for less than the one that would be taken."""

from typing import TYPE_CHECKING

from pulumi_vllm.provider.plugin.resource import Call, Values

if TYPE_CHECKING:
    from pulumi_vllm.plan import Offer


async def tell(call: Call, new: Values, taken: "Offer") -> None:
    """Compare today's offers of `alternatives` (as "1x H200"), billed as the taken one is.

    Where a disk is already, only what is there, by its provider and region; both are None before. The sentence
    names where the offer is.
    """
    machines = [machine.partition("x ") for machine in new.get("alternatives") or ()]
    if not machines:
        return
    from pulumi_vllm.plan import pricing as price  # YAML takes 0.07 s of the plugin's start

    provider, region, priced = new.get("provider"), new.get("region"), []
    offers = [
        offer
        for offer in await call.session.ask(call.session.cloud().offers)
        if provider is None or offer.provider == provider
    ]
    for count, _, gpu in machines:
        found = price.cheapest(offers, gpu, int(count), taken.billing, region)
        if found is not None:
            priced.append((found.usd_per_hour, int(count), gpu, found.place(region)))
    sentence = price.less(taken.usd_per_hour, f"{new['count']}x {new['gpu']}", priced)
    if sentence:
        await call.warn(sentence)
