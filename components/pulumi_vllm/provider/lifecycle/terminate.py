"""Terminate an instance: wait for the minimum run time, drain, stop, unmount, DELETE, detach its volumes."""

import contextlib
import math
from collections.abc import Iterator

from pulumi_vllm.host.errors import HostError
from pulumi_vllm.provider.lifecycle.drain import DRAIN_MARGIN_S, drain_script
from pulumi_vllm.provider.lifecycle.host_connection import connect_host
from pulumi_vllm.provider.lifecycle.poll import API_PAUSES_S, PollTimeoutError, poll
from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.errors import Cancelled, UserError
from pulumi_vllm.provider.plugin.resource import Values
from pulumi_vllm.render import layout
from pulumi_vllm.spheron.errors import CloudError, TooEarlyError, UnknownStatusError

_GONE_WITHIN_S = 300.0  # after an accepted DELETE; past that somebody must look (spheron-api.md, rule 30)
_PAUSES_S = tuple(pause_s for pause_s in API_PAUSES_S if pause_s <= 10)  # noqa: PLR2004 (a countdown in minutes)


async def terminate(call: Call, instance_id: str, state: Values) -> None:
    """Terminate an instance, and let running requests finish where possible."""
    instance = await call.session.ask(call.session.cloud().instances.get, instance_id)
    if instance is not None and not instance.gone:
        await _wait_minimum_run_time(call, instance_id, instance.name)
        if instance.status != "stopped":
            await _stop_host(call, state)
        await _delete(call, instance_id, instance.name)
        await _wait_gone(call, instance_id, instance.name)
    await _detach_volumes(call, instance_id)


async def _wait_minimum_run_time(call: Call, instance_id: str, name: str) -> None:
    """Keep serving until the cloud accepts a DELETE. Ctrl-C keeps the instance."""
    countdown = ""

    async def is_over() -> bool | None:
        nonlocal countdown
        answer = await call.session.ask(call.session.cloud().instances.can_terminate, instance_id)
        countdown = f"minimum run time of {answer.minimum_min} min ends in {answer.remaining_min} min"
        return True if answer.allowed else None

    with _cancelled_means(f"{name} is still running, billed and in state"):
        await poll(
            call,
            is_over,
            within_s=math.inf,
            pauses=_PAUSES_S,
            report=lambda: f"{name} keeps serving until the cloud's {countdown}",
        )


async def _stop_host(call: Call, state: Values) -> None:
    """Drain the gateway, stop the units and unmount the volume. An unreachable host is terminated without this."""
    if not state.get("hostKey"):
        return
    timeout_s = float(state.get("drainTimeoutS") or 0)
    connection = {
        "host": state.get("address"),
        "port": state.get("port"),
        "user": state.get("user"),
        "hostKey": state.get("hostKey"),
        "privateKey": state.get("sshPrivateKey"),
    }
    script = f"""
{drain_script(timeout_s)}
systemctl stop {layout.ENGINE_UNIT} '{layout.EVERY_INSTANCE}' 2>/dev/null || true
systemctl stop {layout.GATEWAY_UNIT} {layout.WEIGHTS_UNIT} 2>/dev/null || true
systemctl stop {layout.MOUNT_UNIT} 2>/dev/null || true
sync
"""
    try:
        await call.progress(f"draining {state.get('instanceName')} (up to {timeout_s:.0f} s)")
        host = await connect_host(call, {"connection": connection})
        await host.run(script, timeout_s=timeout_s + DRAIN_MARGIN_S, check=False)
    except HostError as error:
        await call.warn(
            f"could not drain {state.get('instanceName')}: {error}; it is terminated without draining"
        )


async def _delete(call: Call, instance_id: str, name: str) -> None:
    """Send the DELETE until the cloud accepts it: its minimum run time may be longer than announced."""
    refusal = ""

    async def is_accepted() -> bool | None:
        nonlocal refusal
        try:
            await call.session.ask(call.session.cloud().instances.terminate, instance_id)
        except TooEarlyError as error:
            refusal = str(error)
            await _wait_minimum_run_time(call, instance_id, name)
            return None
        return True

    with _cancelled_means(f"{name} is still running, billed and in state"):
        await poll(
            call,
            is_accepted,
            within_s=math.inf,
            pauses=_PAUSES_S,
            report=lambda: f"{name} keeps serving: {refusal}",
        )


async def _wait_gone(call: Call, instance_id: str, name: str) -> None:
    async def is_gone() -> bool | None:
        try:
            instance = await call.session.ask(call.session.cloud().instances.get, instance_id)
        except UnknownStatusError:
            return None  # perhaps the status of an instance that is being terminated
        # A failed instance may stay in the list after its DELETE, which is the last thing that can be done.
        return True if instance is None or instance.terminal else None

    try:
        with _cancelled_means(
            f"the cloud was asked to terminate {name} ({instance_id}), which may still bill"
        ):
            await poll(
                call,
                is_gone,
                within_s=_GONE_WITHIN_S,
                pauses=_PAUSES_S,
                report=lambda: f"{name} is being terminated",
            )
    except PollTimeoutError:
        raise UserError(
            f"{name} ({instance_id}) still runs {_GONE_WITHIN_S / 60:.0f} min after its DELETE; look at the "
            "cloud's console, then run `pulumi destroy` again"
        ) from None


async def _detach_volumes(call: Call, instance_id: str) -> None:
    """Detach the volumes that are still listed at the instance. A failure must not keep the instance in state."""
    cloud = call.session.cloud()
    try:
        for volume in await call.session.ask(cloud.volumes.list):
            if instance_id in volume.attached_to:
                await call.session.ask(cloud.volumes.detach, volume.handle, instance_id, ignore_refusal=True)
    except CloudError as error:
        await call.warn(
            f"the instance is gone; its volume is detached when it is used or deleted the next time: {error}"
        )


@contextlib.contextmanager
def _cancelled_means(consequence: str) -> Iterator[None]:
    """Say what the user's Ctrl-C leaves behind."""
    try:
        yield
    except Cancelled:
        raise UserError(f"cancelled: {consequence}; run `pulumi destroy` again") from None
