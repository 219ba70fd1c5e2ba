"""Follow a oneshot unit on the host: start it, show its progress, and report why it failed."""

import json
import time
from dataclasses import dataclass
from typing import Any

from pulumi_vllm.host.boot_identity import PRINT_BOOT_IDENTITY
from pulumi_vllm.host.errors import AuthRefused, Unreachable
from pulumi_vllm.provider.lifecycle.failure_reason import failure_reason
from pulumi_vllm.provider.lifecycle.host_connection import connect_host
from pulumi_vllm.provider.lifecycle.instance_liveness import check_instance_alive
from pulumi_vllm.provider.lifecycle.poll import HOST_PAUSES_S, poll
from pulumi_vllm.provider.plugin.call import Call
from pulumi_vllm.provider.plugin.errors import UserError
from pulumi_vllm.provider.plugin.resource import Values
from pulumi_vllm.render import layout

# A unit reports a phase or some bytes far more often than this. Without any progress, it hangs.
_STALLED_AFTER_S = 1800.0
# A restart of an instance with a share took 45 s without SSH (Spheron, in client code of 2026-05). Bare metal takes
# minutes.
_UNREACHABLE_FOR_AT_MOST_S = 420.0
# How long a host is unreachable before the cloud is asked about it, and how often after that.
_CHECK_MACHINE_AFTER_S, _CHECK_MACHINE_EVERY_S = 5.0, 20.0
_MB, _GB = 1e6, 1e9

Record = dict[str, Any]
"""What a unit wrote about its progress, or why it failed."""


@dataclass(frozen=True, slots=True)
class OneshotUnit:
    """A oneshot unit, and the file in which it writes its progress or why it failed."""

    name: str
    progress_file: str


WEIGHTS = OneshotUnit(layout.WEIGHTS_UNIT, layout.WEIGHTS_PROGRESS)
INSTALL = OneshotUnit(layout.INSTALL_UNIT, layout.INSTALL_PROGRESS)
PREFLIGHT = OneshotUnit(layout.PREFLIGHT_UNIT, layout.PREFLIGHT_RESULT)


async def run_unit(call: Call, values: Values, unit: OneshotUnit, *, restart: bool = False) -> Record:
    """Start a unit and wait until it has finished, even when the host restarts. Returns its last record.

    Raises:
        UserError: the unit failed. The message ends with its own error, or with its last journal lines.
        HostError: the host stays unreachable.
    """
    running = _RunningUnit(call, values, unit)
    await running.start(restart=restart)
    return await poll(
        call, running.finished, within_s=float("inf"), pauses=HOST_PAUSES_S, report=running.describe
    )


class _RunningUnit:
    """A started unit, and what is known about it so far."""

    def __init__(self, call: Call, values: Values, unit: OneshotUnit) -> None:
        self._call = call
        self._values = values
        self._unit = unit
        self._boot = ""
        self._record: Record = {}
        self._answered_at = self._progress_at = time.monotonic()
        self._check_machine_after_s = _CHECK_MACHINE_AFTER_S
        self._unreachable = False

    async def start(self, *, restart: bool) -> None:
        """Start the unit, and remove the record of its last run."""
        host = await connect_host(self._call, self._values)
        verb = "restart" if restart else "start"
        script = _START.format(unit=self._unit.name, file=self._unit.progress_file, verb=verb)
        self._boot = (await host.run(script, timeout_s=60)).stdout.strip()

    async def finished(self) -> Record | None:
        """Return the last record once the unit has finished."""
        try:
            host = await connect_host(self._call, self._values)
            script = _SHOW.format(unit=self._unit.name, file=self._unit.progress_file)
            shown = await host.run(script, timeout_s=60)
            state, job, boot, record = (shown.stdout + "\n\n\n").split("\n", 3)
            if boot != self._boot:
                await self._call.info(f"the host was restarted; {self._unit.name} continues")
                await self.start(restart=False)
                return None
        except (Unreachable, AuthRefused):
            self._unreachable = True
            if time.monotonic() - self._answered_at > _UNREACHABLE_FOR_AT_MOST_S:
                raise
            await self._check_machine()
            return None
        self._update(_parse(record))
        # While the unit has a job, its state may be the one before the job.
        if not job and state == "active":
            return self._record
        if not job and state in {"failed", "inactive"}:
            reason = await failure_reason(host, self._unit.name, self._record)
            raise UserError(f"{self._call.name}: {self._unit.name} failed: {reason}")
        if time.monotonic() - self._progress_at > _STALLED_AFTER_S:
            raise UserError(
                f"{self._call.name}: {self._unit.name} made no progress for {_STALLED_AFTER_S / 60:.0f} min; "
                f"read `journalctl -u {self._unit.name}` on the host"
            )
        return None

    def describe(self) -> str:
        """Describe the progress of the unit in one line."""
        return "the host does not answer" if self._unreachable else describe(self._unit.name, self._record)

    def _update(self, record: Record) -> None:
        self._answered_at = time.monotonic()
        self._check_machine_after_s = _CHECK_MACHINE_AFTER_S
        self._unreachable = False
        if record and record != self._record:
            self._record = record
            self._progress_at = self._answered_at

    async def _check_machine(self) -> None:
        """Ask the cloud from time to time whether the instance still exists."""
        unreachable_for_s = time.monotonic() - self._answered_at
        if unreachable_for_s > self._check_machine_after_s:
            self._check_machine_after_s = unreachable_for_s + _CHECK_MACHINE_EVERY_S
            await check_instance_alive(self._call, self._values)


def describe(unit: str, record: Record) -> str:
    """Describe a record in one line: phase, files, bytes, rate, time left."""
    if not record:
        return f"waiting for {unit}"
    if record.get("error"):
        return f"{unit} tries again: {record['error']}"
    parts = [str(record.get("phase") or unit)]
    if record.get("files"):
        parts.append(f"{record.get('files_done', 0)}/{record['files']} files")
    if record.get("bytes"):
        scale, name = (_GB, "GB") if record["bytes"] >= _GB else (_MB, "MB")
        parts.append(f"{record.get('bytes_done', 0) / scale:.1f}/{record['bytes'] / scale:.1f} {name}")
    if record.get("rate_bytes_s"):
        parts.append(f"{record['rate_bytes_s'] / _MB:.1f} MB/s")
    if record.get("eta_s") is not None:
        parts.append(f"{record['eta_s']:.0f} s left")
    return ", ".join(parts)


def _parse(text: str) -> Record:
    try:
        record = json.loads(text)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


_START = f"""
rm -f {{file}}
systemctl reset-failed {{unit}} 2>/dev/null || true
systemctl {{verb}} --no-block {{unit}}
{PRINT_BOOT_IDENTITY}
"""

_SHOW = f"""
systemctl show -P ActiveState {{unit}}
systemctl show -P Job {{unit}} | sed 's/^0$//'
{PRINT_BOOT_IDENTITY}
cat {{file}} 2>/dev/null || true
"""
