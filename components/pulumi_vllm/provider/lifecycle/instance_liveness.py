"""Whether an instance still exists, and what a user can do when it does not."""

from typing import TYPE_CHECKING

from pulumi_vllm.plan.own_machine import ID_PREFIX
from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.errors import UserError
from pulumi_vllm.provider.plugin.protocol import reveal
from pulumi_vllm.provider.plugin.resource import Values

if TYPE_CHECKING:
    from pulumi_vllm.spheron.models import Instance

UNUSABLE_STATUSES = frozenset({"failed", "stopped"})
"""Statuses of an instance that will never run again: the API has no call that starts one."""


class InstanceLostError(UserError):
    """The instance no longer exists at the cloud."""


async def check_instance_alive(call: Call, values: Values) -> None:
    """Ask the cloud about an instance whose host does not answer, and return if waiting can help.

    No cloud knows of a machine that somebody else made.

    Raises:
        InstanceLostError: the instance no longer exists, for example because its provider reclaimed it.
        UserError: it is stopped or failed, or its address changed.
    """
    if not is_rented(values):
        return
    instance_id = str(values["instanceId"])
    instance = await call.session.ask(call.session.cloud().instances.get, instance_id)
    if instance is None or instance.gone:
        raise InstanceLostError(
            f"{call.name}: {describe_loss(instance, instance_id)}; `pulumi up --refresh` rents another one, which "
            "continues with what is on the volume"
        )
    if instance.status in UNUSABLE_STATUSES:
        raise UserError(f"{call.name}: {instance.name} is {instance.status}; {replacement_hint(call)}")
    known = (reveal(values.get("connection")) or {}).get("host")
    if instance.address and known and instance.address != known:
        raise UserError(
            f"{call.name}: {instance.name} restarted with another address, {instance.address} instead of {known}; "
            "`pulumi up --refresh` continues there"
        )


def is_rented(values: Values) -> bool:
    """Whether the input `instanceId` names an instance of a cloud. Only a resource on a host has the input."""
    instance_id = values.get("instanceId")
    return instance_id is not None and not str(instance_id).startswith(ID_PREFIX)


def describe_loss(instance: "Instance | None", instance_id: str) -> str:
    """Say how an instance ended. None stands for one that the cloud no longer lists."""
    if instance is None:
        return f"the cloud no longer lists the instance {instance_id}"
    if instance.status == "terminated-provider":
        return f"{instance.name} ({instance_id}) was reclaimed by the provider"
    return (
        f"{instance.name} ({instance_id}) was terminated outside Pulumi (by `pulumi-vllm sweep`, in the cloud's "
        "console, or because the team ran out of credit)"
    )


def replacement_hint(call: Call) -> str:
    """Say how to replace an instance that will not run again. Only its own resource knows its URN."""
    if call.type_token == "vllm:spheron:Instance":
        return f"`pulumi up --replace '{call.urn}'` rents another"
    return "it is billed, and `pulumi refresh` shows how to replace it"
