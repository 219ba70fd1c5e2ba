"""How a machine comes: until the cloud says `running`, at its price, and SSH lets us in; its id stays in state."""

import time
from typing import TYPE_CHECKING, Any

from pulumi_vllm.host.errors import HostError, HostKeyChanged
from pulumi_vllm.provider.lifecycle.machine_state import (
    UNUSABLE_STATUSES,
    InstanceLostError,
    check_instance_alive,
    pause_s,
    replacement_hint,
)
from pulumi_vllm.provider.lifecycle.poll import PollTimeoutError, poll
from pulumi_vllm.provider.plugin.resource import Call, Cancelled, Partial, UserError, Values, reveal

if TYPE_CHECKING:
    from pulumi_vllm.host.ssh import Host

# Provisioning takes 3 to 25 minutes, SSH up to 20 more (Spheron, seen in client code 2026-05): 60 in all.
_READY_WITHIN_S = 3600.0
_GO_ON = "run `pulumi up` again to wait on, or `pulumi destroy` lets it go"
_ASK_EVERY_S = 20.0  # while SSH does not answer: whether the machine is still ours
_LOGIN_PAUSES_S = (0.5, 0.5, 1.0, 1.0, 2.0, 3.0, 5.0)


async def arrive(call: Call, machine_id: str, new: Values, outputs: Values) -> Values:
    """Wait for `running`, then for SSH. Whatever goes wrong, the id stays in state."""
    ends = time.monotonic() + (call.timeout_s or _READY_WITHIN_S)
    try:
        await _wait_running(call, machine_id, new, outputs, ends)
        await _wait_ssh(call, machine_id, new, outputs, ends)
    except Cancelled:
        raise Partial(
            f"cancelled while waiting for {outputs['instanceName']} ({machine_id}); it exists and is billed",
            machine_id,
            outputs,
        ) from None
    except InstanceLostError as error:
        raise Partial(str(error), machine_id, outputs) from error
    except Exception as error:
        remedy = "" if isinstance(error, UserError) else f"; {_GO_ON}"
        text = f"machine {outputs['instanceName']} ({machine_id}): {error}{remedy}; it exists and is billed"
        raise Partial(text, machine_id, outputs) from error
    return outputs


async def _wait_running(call: Call, machine_id: str, new: Values, outputs: Values, ends: float) -> None:
    cloud, began, attempt = call.session.cloud(), time.monotonic(), 0
    while True:
        machine = await call.session.ask(cloud.instances.get, machine_id)
        status = "not in the cloud's list"
        if machine is None or machine.gone:
            await check_instance_alive(
                call, {"instanceId": machine_id}
            )  # goes on only where a second look finds it
        else:
            outputs |= seen(machine)
            status = machine.status
            if status in UNUSABLE_STATUSES:
                raise UserError(f"the cloud says {status}; {replacement_hint(call)}")
            _refuse_dearer(machine, new)
            if status == "running" and machine.address:
                return
        waited = time.monotonic() - began
        if time.monotonic() > ends:
            raise UserError(f"still {status} after {waited:.0f} s; {_GO_ON}")
        await call.progress(f"{outputs['instanceName']} is {status} ({waited:.0f} s)")
        await call.sleep(min(pause_s(attempt), max(0.1, ends - time.monotonic())))
        attempt += 1


def _refuse_dearer(machine: Any, new: Values) -> None:
    """The offer's price may have changed after it was listed: the ceiling holds for what is billed."""
    ceiling, price = new.get("maxUsdPerHour"), machine.usd_per_hour
    if ceiling is not None and price is not None and price > ceiling:
        raise UserError(
            f"the cloud bills ${price:.4g}/h for it, above the ceiling of ${ceiling:.4g}/h; raise "
            "max_usd_per_hour to keep it, or `pulumi destroy` lets it go"
        )


async def _wait_ssh(call: Call, machine_id: str, new: Values, outputs: Values, ends: float) -> None:
    """Wait until a user can log in and become root. A refused key is tried again: images add it late."""
    from pulumi_vllm.host.login import log_in  # asyncssh takes 0.2 s to import

    users = [outputs["user"]] if outputs.get("user") else ["ubuntu", "root"]
    values = {"instanceId": machine_id, "connection": {"host": outputs["address"]}}
    private_key = str(reveal(new["sshPrivateKey"]))
    failure = HostError(f"{outputs['address']} was not tried")
    next_check = time.monotonic() + _ASK_EVERY_S

    async def try_to_log_in() -> "Host | None":
        nonlocal failure, next_check
        attempt = log_in(outputs["address"], outputs.get("port") or 22, users, private_key)
        try:
            return await call.until_cancelled(attempt)
        except HostKeyChanged:
            raise
        except HostError as error:
            failure = error
        if time.monotonic() > next_check:
            next_check = time.monotonic() + _ASK_EVERY_S
            await check_instance_alive(call, values)
        return None

    try:
        host = await poll(
            call,
            try_to_log_in,
            within_s=max(0.0, ends - time.monotonic()),
            pauses=_LOGIN_PAUSES_S,
            report=lambda: f"waiting for SSH: {failure}",
        )
    except PollTimeoutError as error:
        raise HostError(f"{failure}; gave up after {error.waited_s:.0f} s") from None
    outputs |= {"user": host.address.user, "port": host.address.port, "hostKey": host.host_key}
    await host.close()
    await call.info(f"{outputs['instanceName']} is up at {outputs['address']}")


def seen(machine: Any) -> Values:
    """What the cloud says of a machine, as outputs."""
    from pulumi_vllm.spheron.providers import mount_kind

    known = {
        "instanceName": machine.name,
        "status": machine.status,
        "address": machine.address,
        "usdPerHour": machine.usd_per_hour,
        "billedAs": machine.billing,
        "offerId": machine.offer_id,
        "placement": machine.region,
        "host": machine.provider,
        "mountKind": mount_kind(machine.provider),
        "createdAt": machine.created_at,
        "port": machine.port,
        "user": machine.user,
    }
    return {name: value for name, value in known.items() if value is not None}
