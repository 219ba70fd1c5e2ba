"""How a machine goes: serve out the minimum run time, drain, stop, unmount, DELETE, detach what is left."""

from typing import Any

from .common import host_of, pause_s
from .resource import Call, Cancelled, UserError, Values

_PROGRAMS = "/usr/local/lib/pulumi-vllm"
_GONE_WITHIN_S = 300.0  # after an accepted DELETE; past that somebody must look (spheron-api.md, rule 30)


async def leave(call: Call, machine_id: str, state: Values) -> None:
    """Let the machine go, without a lost request where it can be helped."""
    cloud = call.session.cloud()
    machine = await call.session.ask(cloud.instance, machine_id)
    if machine is None:
        return
    if not machine.gone:
        await _serve_minimum(call, machine_id, machine.name)
        await _quiet(call, state)
        await _terminate(call, machine_id, machine.name)
    for volume in await call.session.ask(cloud.volumes):
        if machine_id in volume.attached_to:
            await call.session.ask(cloud.detach, volume.handle, machine_id, ignore_errors=True)


async def _serve_minimum(call: Call, machine_id: str, name: str) -> None:
    """The cloud refuses an early DELETE: keep serving, show the countdown, and keep the machine on Ctrl-C."""
    attempt = 0
    while True:
        answer = await call.session.ask(call.session.cloud().can_terminate, machine_id)
        if answer.can:
            return
        await call.progress(
            f"{name} serves on: the cloud's minimum run time of {answer.minimum_min} min ends in "
            f"{answer.remaining_min} min"
        )
        try:
            await call.sleep(min(pause_s(attempt), 10.0))
        except Cancelled:
            raise UserError(
                f"cancelled: {name} is still running, billed and in state; run `pulumi destroy` again"
            ) from None
        attempt += 1


async def _quiet(call: Call, state: Values) -> None:
    """Drain the door, stop the units, unmount; a machine that can't be reached goes as it is."""
    from pulumi_vllm.host.ssh import HostError  # noqa: PLC0415

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
        host = await host_of(call, {"connection": connection})
        await host.run(script, timeout_s=timeout_s + 120, check=False)
    except HostError as error:
        await call.warn(f"could not drain {state.get('instanceName')}: {error}; it goes without")


async def _terminate(call: Call, machine_id: str, name: str) -> None:
    from pulumi_vllm.cloud.errors import TooEarly  # noqa: PLC0415

    cloud: Any = call.session.cloud()
    while True:
        try:
            await call.session.ask(cloud.terminate, machine_id)
            break
        except TooEarly:
            await _serve_minimum(call, machine_id, name)
    waited, attempt = 0.0, 0
    while waited < _GONE_WITHIN_S:
        machine = await call.session.ask(cloud.instance, machine_id)
        if machine is None or machine.gone:
            return
        await call.sleep(pause_s(attempt))
        waited, attempt = waited + pause_s(attempt), attempt + 1
    raise UserError(
        f"{name} ({machine_id}) still runs 5 min after its DELETE; look at the cloud's console, then destroy again"
    )
