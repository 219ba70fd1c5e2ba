"""Wait until a new instance is ready: running, within the price ceiling, and reachable over SSH."""

import time
from typing import TYPE_CHECKING

from pulumi_vllm.host.errors import AuthRefused, HostError, HostKeyChanged
from pulumi_vllm.provider.lifecycle.instance_liveness import (
    UNUSABLE_STATUSES,
    InstanceLostError,
    check_instance_alive,
    replacement_hint,
)
from pulumi_vllm.provider.lifecycle.poll import API_PAUSES_S, PollTimeoutError, poll
from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.errors import Cancelled, Partial, UserError
from pulumi_vllm.provider.plugin.protocol import reveal
from pulumi_vllm.provider.plugin.resource import Values
from pulumi_vllm.spheron.providers import mount_kind

if TYPE_CHECKING:
    from pulumi_vllm.host.ssh import Host
    from pulumi_vllm.spheron.models import Instance

# Provisioning takes 3 to 25 minutes, and SSH up to 20 more (client code of Spheron users, 2026-05): 60 in all.
_READY_WITHIN_S = 3600.0
_CHECK_INSTANCE_EVERY_S = 20.0  # while SSH does not answer
_LATE = "; a new instance may accept our key some minutes after its start"
_LOGIN_PAUSES_S = (0.5, 0.5, 1.0, 1.0, 2.0, 3.0, 5.0)
KEEP_WAITING = "; run `pulumi up` again to keep waiting, or `pulumi destroy` to terminate it"


class NeverRunningError(UserError):
    """The cloud did not report the instance as running in time."""


class NeverReachedError(HostError):
    """The host did not admit us over SSH in time."""


NEVER_READY = (NeverRunningError, NeverReachedError)
"""Causes of a `Partial`: the time limit has passed."""


async def wait_until_ready(call: Call, instance_id: str, new: Values, outputs: Values) -> Values:
    """Wait for the status `running`, then for SSH, and return the outputs.

    Raises:
        Partial: whatever went wrong, so that the id of a billed instance stays in state.
    """
    deadline = time.monotonic() + (call.timeout_s or _READY_WITHIN_S)
    name = outputs["instanceName"]
    try:
        await _wait_running(call, instance_id, new, outputs, deadline)
        await _wait_ssh(call, instance_id, new, outputs, deadline)
    except Cancelled:
        message = f"cancelled while waiting for {name} ({instance_id}); it exists and is billed"
        raise Partial(message, instance_id, outputs) from None
    except InstanceLostError as error:
        raise Partial(str(error), instance_id, outputs) from error
    except Exception as error:
        remedy = "" if isinstance(error, UserError) else KEEP_WAITING
        message = f"instance {name} ({instance_id}): {error}{remedy}; it exists and is billed"
        raise Partial(message, instance_id, outputs) from error
    return outputs


async def _wait_running(call: Call, instance_id: str, new: Values, outputs: Values, deadline: float) -> None:
    status = ""

    async def is_running() -> bool | None:
        nonlocal status
        instance = await call.session.ask(call.session.cloud().instances.get, instance_id)
        if instance is None or instance.gone:
            status = "not in the cloud's list"
            await check_instance_alive(call, {"instanceId": instance_id})  # returns if it is listed after all
            return None
        status = instance.status
        outputs.update(instance_outputs(instance))
        if status in UNUSABLE_STATUSES:
            raise UserError(f"the cloud reports {status}; {replacement_hint(call)}")
        _check_price(instance, new)
        return True if status == "running" and instance.address else None

    try:
        await poll(
            call,
            is_running,
            within_s=deadline - time.monotonic(),
            pauses=API_PAUSES_S,
            report=lambda: f"{outputs['instanceName']} is {status}",
        )
    except PollTimeoutError as error:
        raise NeverRunningError(f"still {status} after {error.waited_s:.0f} s{KEEP_WAITING}") from None


def _check_price(instance: "Instance", new: Values) -> None:
    """Apply the ceiling to the billed price, which may have changed after the offer was listed."""
    ceiling, price = new.get("maxUsdPerHour"), instance.usd_per_hour
    if ceiling is not None and price is not None and price > ceiling:
        raise UserError(
            f"the cloud bills ${price:.4g}/h for it, above the ceiling of ${ceiling:.4g}/h; raise "
            "max_usd_per_hour to keep it, or run `pulumi destroy` to terminate it"
        )


async def _wait_ssh(call: Call, instance_id: str, new: Values, outputs: Values, deadline: float) -> None:
    """Wait until a user can log in and become root. A refused key is tried again: images add it late."""
    from pulumi_vllm.host.login import log_in  # asyncssh takes 0.2 s to import

    users = [outputs["user"]] if outputs.get("user") else ["ubuntu", "root"]
    values = {"instanceId": instance_id, "connection": {"host": outputs["address"]}}
    private_key = str(reveal(new["sshPrivateKey"]))
    failure = HostError(f"{outputs['address']} was not tried")
    next_check = time.monotonic() + _CHECK_INSTANCE_EVERY_S

    async def logged_in() -> "Host | None":
        nonlocal failure, next_check
        attempt = log_in(outputs["address"], outputs.get("port") or 22, users, private_key)
        try:
            return await call.until_cancelled(attempt)
        except HostKeyChanged:
            raise
        except HostError as error:
            failure = error
        if time.monotonic() > next_check:
            next_check = time.monotonic() + _CHECK_INSTANCE_EVERY_S
            await check_instance_alive(call, values)
        return None

    try:
        host = await poll(
            call,
            logged_in,
            within_s=max(0.0, deadline - time.monotonic()),
            pauses=_LOGIN_PAUSES_S,
            report=lambda: f"waiting for SSH: {failure}{_LATE if isinstance(failure, AuthRefused) else ''}",
        )
    except PollTimeoutError as error:
        raise NeverReachedError(f"{failure}; gave up after {error.waited_s:.0f} s") from None
    outputs |= {"user": host.address.user, "port": host.address.port, "hostKey": host.host_key}
    await host.close()
    await call.info(f"{outputs['instanceName']} is up at {outputs['address']}")


def instance_outputs(instance: "Instance") -> Values:
    """Return the outputs that the cloud reports for an instance."""
    reported = {
        "instanceName": instance.name,
        "status": instance.status,
        "address": instance.address,
        "usdPerHour": instance.usd_per_hour,
        "billedAs": instance.billing,
        "offerId": instance.offer_id,
        "placement": instance.region,
        "host": instance.provider,
        "mountKind": mount_kind(instance.provider),
        "createdAt": instance.created_at,
        "port": instance.port,
        "user": instance.user,
    }
    return {name: value for name, value in reported.items() if value is not None}
