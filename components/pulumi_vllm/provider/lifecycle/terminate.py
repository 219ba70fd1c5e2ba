"""How a machine goes: serve out the minimum run time, drain, stop, unmount, DELETE, detach what is left."""

import time
from typing import Any

from pulumi_vllm.provider.lifecycle.host_connection import connect_host
from pulumi_vllm.provider.lifecycle.machine_state import pause_s
from pulumi_vllm.provider.plugin.resource import Call, Cancelled, UserError, Values

_PROGRAMS = "/usr/local/lib/pulumi-vllm"
_GONE_WITHIN_S = 300.0  # after an accepted DELETE; past that somebody must look (spheron-api.md, rule 30)


async def leave(call: Call, machine_id: str, state: Values) -> None:
    """Let the machine go, without a lost request where it can be helped."""
    machine = await call.session.ask(call.session.cloud().instances.get, machine_id)
    if machine is not None and not machine.gone:
        await _serve_minimum(call, machine_id, machine.name)
        await _quiet(call, state)
        await _terminate(call, machine_id, machine.name)
    await _release_disks(call, machine_id)


async def _serve_minimum(call: Call, machine_id: str, name: str) -> None:
    """The cloud refuses an early DELETE: keep serving, show the countdown, and keep the machine on Ctrl-C."""
    attempt = 0
    while True:
        answer = await call.session.ask(call.session.cloud().instances.can_terminate, machine_id)
        if answer.allowed:
            return
        await call.progress(
            f"{name} serves on: the cloud's minimum run time of {answer.minimum_min} min ends in "
            f"{answer.remaining_min} min"
        )
        await _wait(call, attempt, f"{name} is still running, billed and in state")
        attempt += 1


async def _wait(call: Call, attempt: int, left: str) -> None:
    try:
        await call.sleep(min(pause_s(attempt), 10.0))
    except Cancelled:
        raise UserError(f"cancelled: {left}; run `pulumi destroy` again") from None


async def _quiet(call: Call, state: Values) -> None:
    """Drain the gateway, stop the units, unmount; a machine that can't be reached goes as it is."""
    from pulumi_vllm.host.ssh import HostError

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
if test -x {_PROGRAMS}/drain; then {_PROGRAMS}/drain --timeout {timeout_s:.0f} || true; fi
systemctl stop vllm.service haproxy.service vllm-weights.service 2>/dev/null || true
systemctl stop models.mount 2>/dev/null || true
sync
"""
    try:
        await call.progress(f"draining {state.get('instanceName')} (up to {timeout_s:.0f} s)")
        host = await connect_host(call, {"connection": connection})
        await host.run(script, timeout_s=timeout_s + 120, check=False)
    except HostError as error:
        await call.warn(f"could not drain {state.get('instanceName')}: {error}; it goes without")


async def _terminate(call: Call, machine_id: str, name: str) -> None:
    from pulumi_vllm.spheron.errors import TooEarlyError, UnknownStatusError

    cloud: Any = call.session.cloud()
    attempt = 0
    while True:
        try:
            await call.session.ask(cloud.instances.terminate, machine_id)
            break
        except TooEarlyError as error:
            await call.progress(f"{name} serves on: {error}")
            await _wait(call, attempt, f"{name} is still running, billed and in state")
            await _serve_minimum(call, machine_id, name)
            attempt += 1
    began, attempt = time.monotonic(), 0
    while time.monotonic() - began < _GONE_WITHIN_S:
        try:
            machine = await call.session.ask(cloud.instances.get, machine_id)
        except UnknownStatusError:
            pass  # a word for its last moments, maybe; only the known ones say that it is over
        else:
            # A machine that failed may stay so in the list after its DELETE, the last thing that can be done to it.
            if machine is None or machine.terminal:
                return
        await _wait(call, attempt, f"the cloud was told to end {name} ({machine_id}), which may still bill")
        attempt += 1
    raise UserError(
        f"{name} ({machine_id}) still runs 5 min after its DELETE; look at the cloud's console, then destroy again"
    )


async def _release_disks(call: Call, machine_id: str) -> None:
    """Detach what is still listed at the machine, which is gone whatever comes of this: state must not keep it."""
    from pulumi_vllm.spheron.errors import CloudError

    cloud: Any = call.session.cloud()
    try:
        for volume in await call.session.ask(cloud.volumes.list):
            if machine_id in volume.attached_to:
                await call.session.ask(cloud.volumes.detach, volume.handle, machine_id, ignore_refusal=True)
    except CloudError as error:
        await call.warn(f"the machine is gone; its disk is released when it is used or deleted next: {error}")
