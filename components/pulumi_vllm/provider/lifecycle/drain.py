"""Drain the gateway of a host, so that a restart of vLLM cuts off no request."""

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from pulumi_vllm.host.errors import HostError
from pulumi_vllm.plan.defaults import DRAIN_TIMEOUT_S
from pulumi_vllm.provider.lifecycle.host_connection import connect_host
from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.resource import Property, Values
from pulumi_vllm.render import layout

if TYPE_CHECKING:
    from pulumi_vllm.host.ssh import Host

DRAIN_TIMEOUT = Property(
    "number",
    f"Seconds that running requests get to finish before vLLM restarts (default: {DRAIN_TIMEOUT_S}).",
    silent=True,
)
DRAIN_MARGIN_S = 120.0
"""Seconds that a command gets beyond the drain that it contains: a host under load is slow."""


async def drain(call: Call, host: "Host", new: Values, reason: str, *, server: str | None = None) -> None:
    """Close the gateway to new requests, and wait for the running ones up to the input `drainTimeoutS`.

    With `server`, only that engine of several gets no new requests.
    """
    timeout_s = float(new["drainTimeoutS"])
    await call.progress(f"draining the gateway for up to {timeout_s:.0f} s: {reason}")
    await host.run(drain_script(timeout_s, server), timeout_s=timeout_s + DRAIN_MARGIN_S)


def drain_script(timeout_s: float, server: str | None = None) -> str:
    """Return the shell line that drains the gateway. A host without a gateway has nothing to drain."""
    program = f"{layout.DRAIN}{_only(server)}"
    return f"if test -x {layout.DRAIN}; then {program} --timeout {timeout_s:.0f} || true; fi"


def _only(server: str | None) -> str:
    return "" if server is None else f" --server vllm/{server}"


@contextlib.asynccontextmanager
async def give_back_after_failure(call: Call, new: Values, *, restart: str | None) -> AsyncIterator[None]:
    """When a step inside fails, start the unit that it stopped, and open the gateway.

    Without vLLM, HAProxy itself answers 503 until it is back.
    """
    try:
        yield
    except BaseException:
        # The failure of the step is the one to report, and a lost host can't be reached for this either.
        with contextlib.suppress(HostError):
            host = await connect_host(call, new)
            if restart:
                await host.run(f"systemctl start --no-block {restart} || true", timeout_s=60)
            await undo_drain(host)
        raise


async def undo_drain(host: "Host", *, server: str | None = None) -> None:
    """Open the gateway to new requests. With `server`, wait until it sends that engine some."""
    wait = "" if server is None else " --until-up 30"
    undo = f"{layout.DRAIN}{_only(server)} --undo{wait}"
    await host.run(f"if test -S {layout.GATEWAY_ADMIN_SOCKET}; then {undo} || true; fi", timeout_s=90)
