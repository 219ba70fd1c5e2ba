"""The readiness check on the host: one run of it, and why it did not pass."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pulumi_vllm.provider.lifecycle.failure_reason import failure_reason
from pulumi_vllm.provider.lifecycle.poll import HOST_PAUSES_S, PollTimeoutError, poll
from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.errors import UserError
from pulumi_vllm.render import layout

if TYPE_CHECKING:
    from pulumi_vllm.host.ssh import Host

# The check on the host knows the same time limit, and its result says more.
_RESULT_AFTER_S = 90
READ_JOURNAL = "; read `journalctl -u vllm` on the host, then run `pulumi up` again"


@dataclass(slots=True)
class ReadinessCheck:
    """One run of the readiness check. /health alone proves little; golden tokens through the gateway prove more."""

    call: Call
    host: "Host"
    timeout_s: float
    units: tuple[str, ...] = (layout.ENGINE_UNIT,)
    only: str = ""
    """The unit of the one engine of several to check; all are checked without it."""
    engine_state: str = "starting"

    async def result(self) -> dict[str, Any]:
        """Run the check and return its result.

        Raises:
            EngineFailedError: vLLM ended.
            NotReadyError: the check failed, or the time limit passed.
        """
        await self.host.run(_START_READINESS.format(only=self.only), timeout_s=60)
        try:
            return await poll(
                self.call,
                self._passed,
                within_s=self.timeout_s + _RESULT_AFTER_S,
                pauses=HOST_PAUSES_S,
                report=lambda: f"waiting for the readiness check; vllm is {self.engine_state}",
            )
        except PollTimeoutError as error:
            raise NotReadyError(
                f"{self.call.name}: not ready after {error.waited_s:.0f} s{READ_JOURNAL}"
            ) from None

    async def _passed(self) -> dict[str, Any] | None:
        shown = await self.host.run(_SHOW_READINESS.format(units=" ".join(self.units)), timeout_s=60)
        states, check_state, text = (part.strip() for part in (shown.stdout + "\n\n").split("\n", 2))
        self.engine_state = ", ".join(states.split())
        if text:
            result: dict[str, Any] = json.loads(text)
            if result.get("passed"):
                return result
            why, started = str(result.get("why")), str(result.get("invocation") or "")
            unit = str(result.get("unit") or self.units[0])
            reason = await failure_reason(self.host, unit, invocation=started)
            if result.get("engine_ended"):
                ending = why.partition(";")[0]
                raise EngineFailedError(f"{self.call.name}: {unit} failed: {reason} ({ending})")
            raise NotReadyError(
                f"{self.call.name}: the readiness check failed: {why}; the log of vllm: {reason}"
            )
        if check_state == "failed":
            reason = await failure_reason(self.host, layout.READINESS_UNIT)
            raise NotReadyError(f"{self.call.name}: the readiness check failed: {reason}")
        return None


class NotReadyError(UserError):
    """The readiness check did not pass."""


class EngineFailedError(NotReadyError):
    """vLLM ended before the readiness check passed."""


_START_READINESS = f"""
rm -f {layout.READINESS_RESULT} {layout.READINESS_ENGINE}
[ -z "{{only}}" ] || echo "{{only}}" > {layout.READINESS_ENGINE}
systemctl reset-failed {layout.READINESS_UNIT} 2>/dev/null || true
systemctl restart --no-block {layout.READINESS_UNIT}
"""

_SHOW_READINESS = f"""
echo $(systemctl show -P ActiveState {{units}})
systemctl show -P ActiveState {layout.READINESS_UNIT}
cat {layout.READINESS_RESULT} 2>/dev/null || true
"""
