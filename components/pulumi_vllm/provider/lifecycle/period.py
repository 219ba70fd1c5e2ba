"""The period of a machine (`expires`), and the marks at the cloud and on the host that say when it ends."""

import json
import shlex
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pulumi_vllm.plan.names import Mark, mark_of
from pulumi_vllm.provider.lifecycle.host_connection import connect_host
from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.errors import UserError
from pulumi_vllm.provider.plugin.resource import Values
from pulumi_vllm.render import layout

if TYPE_CHECKING:
    from pulumi_vllm.spheron.models import Instance

MARKED_INPUTS = ("owner", "expiresS", "lastUp")
"""Inputs that the name of the instance holds."""


def mark(new: Values) -> Mark:
    """Return what the name of the instance is to hold.

    Raises:
        UserError: `lastUp` is not a time.
    """
    seconds = new.get("expiresS")
    ends = _began(new) + timedelta(seconds=float(seconds)) if seconds else None
    return Mark(new.get("owner"), ends)


async def begin(call: Call, new: Values, outputs: Values) -> None:
    """Let the host count the period from `lastUp`. It gets the age of the period, because its clock may be wrong.

    Raises:
        HostError: the host does not answer, so it may power off before the end that the cloud shows.
    """
    if not new.get("expiresS"):
        return
    connection = {
        "host": outputs.get("address"),
        "port": outputs.get("port"),
        "user": outputs.get("user"),
        "hostKey": outputs.get("hostKey"),
        "privateKey": new["sshPrivateKey"],
    }
    host = await connect_host(call, {"connection": connection})
    began, now = _began(new), datetime.now(UTC)
    text = json.dumps({"began": began.isoformat(), "age_s": max(0.0, (now - began).total_seconds())})
    await host.run(f"install -d {layout.STATE} && echo {shlex.quote(text)} > {layout.LAST_UP}", timeout_s=60)


def _began(new: Values) -> datetime:
    """Return when the period began: at the input `lastUp`, or now."""
    text = new.get("lastUp")
    try:
        return datetime.fromisoformat(text).astimezone(UTC) if text else datetime.now(UTC)
    except ValueError:
        raise UserError(
            f"lastUp: {text!r} is not a time; write one such as 2026-11-30T07:00:00+00:00"
        ) from None


def why_stopped(instance: "Instance", inputs: Values) -> str | None:
    """Say why a machine with a period or an `idle_stop` is powered off. None for another one, and while it runs."""
    if instance.status != "stopped" or not (inputs.get("expiresS") or inputs.get("idleStopS")):
        return None
    ended = mark_of(instance.name).expires
    if ended is not None and ended <= datetime.now(UTC):
        return f"powered off, as its period ended at {shown(ended)} (server.expires)"
    if inputs.get("idleStopS"):
        return "powered off, as it does when nobody uses it (server.idle_stop)"
    return "powered off"


async def report_end(call: Call, instance: "Instance") -> None:
    """Say in each preview when the period ends, and warn of a machine that runs although it has ended."""
    ends = mark_of(instance.name).expires
    if ends is None or instance.status != "running":
        return
    left = ends - datetime.now(UTC)
    if left.total_seconds() > 0:
        hours = left.total_seconds() / 3600
        await call.info(
            f"{call.name}: powers off at {shown(ends)}, in {hours:.1f} hours (server.expires); `pulumi up` begins the "
            "period again"
        )
    else:
        await call.warn(
            f"{call.name}: its period ended at {shown(ends)} (server.expires), and the cloud lists it as running. It "
            "powers off by itself unless the host hangs; `pulumi up` begins the period again, and `pulumi-vllm sweep "
            "--expired --delete` ends the machine"
        )


def shown(moment: datetime) -> str:
    """Format a time for people."""
    return moment.strftime("%Y-%m-%d %H:%M UTC")
