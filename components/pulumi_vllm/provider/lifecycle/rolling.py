"""Restart several engines one after the other, so that the gateway always has one to send requests to."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pulumi_vllm.provider.lifecycle.drain import drain, give_back_after_failure, undo_drain
from pulumi_vllm.provider.lifecycle.readiness_check import ReadinessCheck
from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.resource import Values
from pulumi_vllm.render.engine_places import places_of

if TYPE_CHECKING:
    from pulumi_vllm.host.ssh import Host


async def roll(call: Call, host: "Host", new: Values, units: Iterable[str]) -> None:
    """Drain, stop and start each engine, and open it again when it has passed the readiness check.

    The next one is not touched before that, so a start that fails leaves the others as they are. Engines that are not
    healthy come first, so that another one is ready while a healthy one restarts.

    Raises:
        NotReadyError: an engine did not become ready.
    """
    places = places_of(units)
    shown = await host.run(
        _HEALTH.format(urls=" ".join(f"{place.url}/health" for place in places)), timeout_s=120
    )
    healthy = dict(zip(places, shown.stdout.split(), strict=False))
    for place in sorted(places, key=lambda one: healthy.get(one) == _OK):
        unit = place.unit
        await call.progress(f"restarting {unit}; requests go to the other engines")
        async with give_back_after_failure(call, new, restart=unit):
            await drain(call, host, new, f"{unit} restarts", server=place.server)
            await host.run(_RESTART.format(unit=unit), timeout_s=180)
            await ReadinessCheck(call, host, float(new["readyTimeoutS"]), (unit,), only=unit).result()
        await undo_drain(host, server=place.server)


_OK = "200"
_HEALTH = """
for url in {urls}; do
    curl -s -o /dev/null -m 10 -w '%{{http_code}}\\n' "$url" || true
done
"""
_RESTART = """
systemctl stop {unit}
systemctl reset-failed {unit} 2>/dev/null || true
systemctl start --no-block {unit}
"""
