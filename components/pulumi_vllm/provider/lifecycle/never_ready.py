"""End a new machine that never became ready: it costs as much as a serving one, and nobody may be looking."""

from typing import Final, NoReturn

from pulumi_vllm.provider.lifecycle.provision import KEEP_WAITING
from pulumi_vllm.provider.lifecycle.readiness_check import READ_JOURNAL
from pulumi_vllm.provider.lifecycle.terminate import terminate
from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.errors import Partial, UserError
from pulumi_vllm.provider.plugin.resource import Property, Values
from pulumi_vllm.spheron.errors import CloudError

END_IF_NEVER_READY: Final = Property(
    "boolean",
    "Whether a new instance is ended, after its minimum run time, if it never becomes ready (default: false).",
    silent=True,
)


async def end_never_ready(call: Call, instance_id: str, state: Values, error: UserError) -> NoReturn:
    """Terminate the instance, and fail with the reason why it was not ready.

    Args:
        call: the request of the resource that found out.
        instance_id: the instance.
        state: its outputs and sshPrivateKey, as far as its volume has to be unmounted.
        error: why it is not ready.

    Raises:
        Partial: the instance still exists, where the error was one.
        UserError: it has ended, or could not be ended.
    """
    await call.warn(
        f"{error}. The machine is ended when its minimum run time is over; Ctrl-C keeps it, and so does "
        "server.machine.keep_failed"
    )
    try:
        await terminate(call, instance_id, state)
    except (UserError, CloudError) as second:
        message = f"{error}; the machine should have been ended: {second}"
        if isinstance(error, Partial):
            raise Partial(message, error.resource_id, error.outputs) from error
        raise UserError(message) from error
    reason = str(error).removesuffix("; it exists and is billed")
    for remedy in (KEEP_WAITING, READ_JOURNAL):  # of a machine that exists
        reason = reason.replace(remedy, "")
    raise UserError(
        f"{reason}; the machine was ended, because it never became ready. Correct the cause, then run `pulumi up`, "
        "which rents another one. `server.machine.keep_failed: true` keeps one"
    ) from error
