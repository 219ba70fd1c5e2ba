"""Says in a preview that another machine, which does the same, is offered for less than the one that would be taken."""

from typing import TYPE_CHECKING

from .resource import Call, Values

if TYPE_CHECKING:
    from pulumi_vllm.plan import Offer


async def tell(call: Call, new: Values, taken: "Offer") -> None:
    """Compare today's offers of `alternatives` (as "1x H200"), billed as the taken one is."""
    machines = [machine.partition("x ") for machine in new.get("alternatives") or ()]
    if not machines:
        return
    from pulumi_vllm.plan import price  # noqa: PLC0415 (YAML takes 0.07 s of the plugin's start)

    offers, priced = await call.session.ask(call.session.cloud().offers), []
    for count, _, gpu in machines:
        found = price.cheapest(offers, gpu, int(count), taken.billing)
        if found is not None:
            priced.append((found.usd_per_hour, int(count), gpu, f"{found.provider}, {found.regions[0]}"))
    sentence = price.less(taken.usd_per_hour, f"{new['count']}x {new['gpu']}", priced)
    if sentence:
        await call.warn(sentence)
