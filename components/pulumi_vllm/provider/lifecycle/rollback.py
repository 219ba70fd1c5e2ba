"""Give back what an update took: when it fails, the host restores the files and the engine that vLLM was ready with.

The state keeps the new files, which the next refresh compares with the restored ones, so a preview shows the change
as still to be made.
"""

import contextlib
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from pulumi_vllm.host.errors import HostError, Unreachable
from pulumi_vllm.plan.defaults import READY_TIMEOUT_S
from pulumi_vllm.provider.lifecycle.drain import undo_drain
from pulumi_vllm.provider.lifecycle.host_connection import connect_host
from pulumi_vllm.provider.lifecycle.readiness_check import ReadinessCheck
from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.errors import Cancelled, UserError
from pulumi_vllm.provider.plugin.resource import Values
from pulumi_vllm.render import layout
from pulumi_vllm.render.engine_places import engine_units

if TYPE_CHECKING:
    from pulumi_vllm.host.ssh import Host

# vLLM and the gateway may each take 45 s to stop. Deleting an engine of 6 GB from a slow disk takes longer.
_WITHIN_S = 300.0


@contextlib.asynccontextmanager
async def roll_back_after_failure(call: Call, new: Values, *, restarts: bool = False) -> AsyncIterator[None]:
    """When a step inside fails, restore what vLLM was ready with, and say so at the end of the error.

    With `restarts`, the step starts vLLM, so the error also says when there was nothing to restore. A step that the
    user cancels, or a lost host, leaves everything as it is: vLLM may become ready yet.

    Raises:
        UserError: the step failed.
    """
    try:
        yield
    except (Cancelled, Unreachable):
        raise
    except (UserError, HostError) as error:
        try:
            outcome = await _roll_back(call, new, restarts=restarts)
        except (UserError, HostError) as second:
            outcome = f"the previous files and engine could not be restored: {second}"
        if not outcome:
            raise
        raise UserError(f"{error}; {outcome}") from error


async def keep_what_is_ready(call: Call, host: "Host") -> None:
    """Let the host keep the files and the engine that vLLM is ready with, and remove engines that nothing needs."""
    try:
        await host.run(f"{layout.ROLLBACK} keep", timeout_s=_WITHIN_S)
    except HostError as error:
        await call.warn(f"{call.name}: a later update that fails can't be rolled back to this one: {error}")


async def keep_other_files(host: "Host") -> None:
    """Let the host keep changed files too, unless vLLM is still to start with some of them."""
    await host.run(f"{layout.ROLLBACK} refresh", timeout_s=60)


async def _roll_back(call: Call, new: Values, *, restarts: bool) -> str:
    """Restore on the host, and prove that vLLM serves. Returns what the error ends with.

    Raises:
        HostError, UserError: nothing could be restored.
    """
    host = await connect_host(call, new)
    await call.progress("restoring the files and the engine that vLLM was ready with")
    # A step that starts vLLM uses the unit, which goes on when the connection is lost. Another step must not stop a
    # vLLM that runs, which may have become ready after an `up` that was cancelled.
    restore = f"systemctl start {layout.ROLLBACK_UNIT}" if restarts else f"{layout.ROLLBACK} restore --spare"
    shown = await host.run(_RESTORE.format(restore=restore), timeout_s=_WITHIN_S)
    call.session.hosts().mark_changed(host)
    if not shown.stdout:
        raise UserError(f"{layout.ROLLBACK} wrote no result; read `journalctl -u {layout.ROLLBACK_UNIT}`")
    result: dict[str, Any] = json.loads(shown.stdout)
    if result.get("error"):
        raise UserError(str(result["error"]))
    if "nothing" in result:
        return f"{result['nothing']}, so nothing was restored" if restarts else ""
    remedy = "correct the change, then run `pulumi up` again"
    what = "the previous files and engine are" if result["engine"] else "the previous files are"
    if not result["restarted"]:
        return f"{what} back on the host, and vLLM serves on with them; {remedy}"
    await undo_drain(host)
    try:
        await ReadinessCheck(
            call,
            host,
            float(new.get("readyTimeoutS") or READY_TIMEOUT_S),
            engine_units(new.get("engines") or 1),
        ).result()
    except (UserError, HostError) as error:
        return f"{what} back, but vLLM is not ready with them: {error}"
    await host.run(f"systemctl start {layout.CANARY_UNIT} || true", timeout_s=180)
    return f"{what} back, and vLLM serves again with them; {remedy}"


_RESTORE = f"""
rm -f {layout.ROLLBACK_RESULT}
{{restore}} >&2 || true
cat {layout.ROLLBACK_RESULT} 2>/dev/null || true
"""
