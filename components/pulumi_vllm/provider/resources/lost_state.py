"""Signs that the state of the stack was lost: an instance of the stack runs, and the state does not contain it."""

from typing import Final

from pulumi_vllm.plan.names import is_of_resource, is_of_stack, is_same
from pulumi_vllm.provider.plugin.call import Call

_REMEDY: Final = (
    "If the state was lost, restore an export with `pulumi stack import`, or end the instance with `pulumi-vllm sweep "
    "--delete` (docs/how-to/keep-the-state.md). If another checkout runs a stack of this name, give this one another "
    "name"
)
STATE_LOST: Final = (
    f"a volume has one writer, and the state of this stack does not contain that instance. {_REMEDY}"
)


async def warn_of_unknown_instances(call: Call, own_name: str) -> None:
    """Warn of live instances that this resource created and the state does not contain.

    `own_name` is left out: an instance of that name is adopted.
    """
    for instance in await call.session.ask(call.session.cloud().instances.list):
        of_resource = is_of_stack(instance.name, call.stack, call.project) and is_of_resource(
            instance.name, call.name
        )
        if of_resource and not instance.gone and not is_same(instance.name, own_name):
            price = f", ${instance.usd_per_hour:.2f}/h" if instance.usd_per_hour else ""
            await call.warn(
                f"the instance {instance.name} ({instance.id}{price}) of this stack is {instance.status} and billed, "
                f"but the state does not contain it. {_REMEDY}"
            )
