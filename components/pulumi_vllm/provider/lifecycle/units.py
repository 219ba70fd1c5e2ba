"""Following a long oneshot unit on the host: start it, show its progress, give its own words when it fails."""

import json
import time
from dataclasses import dataclass
from typing import Any

from pulumi_vllm.provider.lifecycle.machine_state import check_instance_alive, connect_host, look_s
from pulumi_vllm.provider.plugin.resource import Call, UserError, Values

_SILENT_S = 1800.0  # without a byte or a phase: something hangs
# A restart of a share's machine took 45 s without SSH (Spheron, seen in client code 2026-05); bare metal takes minutes.
_AWAY_S = 420.0
_SHOWN_IN_GB = 1e9
_ASK_AFTER_S, _ASK_EVERY_S = 5.0, 20.0  # of those, until the cloud is asked whether it is still ours


@dataclass(frozen=True, slots=True)
class Job:
    """A oneshot unit, and the file in which it says how far it is or why it failed."""

    unit: str
    record: str


WEIGHTS = Job("vllm-weights.service", "/run/pulumi-vllm/weights.progress.json")
INSTALL = Job("vllm-install.service", "/run/pulumi-vllm/install.progress.json")
PREFLIGHT = Job("vllm-preflight.service", "/run/pulumi-vllm/preflight.json")


async def follow(call: Call, values: Values, job: Job, *, restart: bool = False) -> Values:
    """Start the unit and watch it to its end, over restarts of the machine; returns its last record.

    Raises:
        UserError: it failed; ends with its own sentence, or with its last journal lines.
        HostError: the machine stays away.
    """
    from pulumi_vllm.host.ssh import AuthRefused, Unreachable

    host = await connect_host(call, values)
    boot = await _start(host, job, restart=restart)
    last: Values = {}
    heard = moved = time.monotonic()
    asked, looks = _ASK_AFTER_S, 0
    while True:
        await call.sleep(look_s(looks))
        looks += 1
        try:
            host = await connect_host(call, values)
            shown = await host.run(_SHOW.format(unit=job.unit, file=job.record), timeout_s=60)
            state, task, booted, tail = (shown.stdout + "\n\n\n").split("\n", 3)
            if booted != boot:
                await call.info(f"the machine was restarted; {job.unit} goes on")
                boot = await _start(host, job, restart=False)
                continue
        except (Unreachable, AuthRefused):
            away = time.monotonic() - heard
            if away > _AWAY_S:
                raise
            if away > asked:
                asked = away + _ASK_EVERY_S
                await check_instance_alive(call, values)
            await call.progress(f"the machine does not answer ({away:.0f} s)")
            continue
        now, asked = (heard := time.monotonic()), _ASK_AFTER_S
        record = _parse(tail) or last
        moved = now if record != last else moved
        last = record
        if not task and state == "active":  # with a task the state may be that of before
            return last
        if not task and state in {"failed", "inactive"}:
            raise UserError(f"{call.name}: {job.unit} failed: {await why(host, job.unit, last)}")
        if now - moved > _SILENT_S:
            raise UserError(
                f"{call.name}: {job.unit} showed no progress for {_SILENT_S / 60:.0f} min; "
                f"look at `journalctl -u {job.unit}`"
            )
        await call.progress(describe(job.unit, last))


async def _start(host: Any, job: Job, *, restart: bool) -> str:
    """Start the unit and let go of what it said before; returns the machine's boot."""
    verb = "restart" if restart else "start"
    started = await host.run(_START.format(unit=job.unit, file=job.record, verb=verb), timeout_s=60)
    return str(started.stdout.strip())


async def why(host: Any, unit: str, record: Values | None = None) -> str:
    """The unit's own sentence, or its last journal lines; never with anything that looks like a secret."""
    from pulumi_vllm.host.mask import mask

    if record and record.get("error"):
        return mask(str(record["error"]))
    # Of its last start only: the lines of an earlier one tell of causes that are gone.
    journal = await host.run(_JOURNAL.format(unit=unit), timeout_s=60, check=False)
    lines = [line.strip() for line in journal.stdout.splitlines() if line.strip()]
    return mask(" | ".join(lines)) or "no word in its journal"


def describe(unit: str, record: Values) -> str:
    """One line: phase, files, bytes, rate, time left."""
    if not record:
        return f"waiting for {unit}"
    parts = [str(record.get("phase") or unit)]
    if record.get("error"):
        return f"{unit} tries again: {record['error']}"
    if record.get("files"):
        parts.append(f"{record.get('files_done', 0)}/{record['files']} files")
    if record.get("bytes"):
        scale, name = (1e9, "GB") if record["bytes"] >= _SHOWN_IN_GB else (1e6, "MB")
        parts.append(f"{record.get('bytes_done', 0) / scale:.1f}/{record['bytes'] / scale:.1f} {name}")
    if record.get("rate_bytes_s"):
        parts.append(f"{record['rate_bytes_s'] / 1e6:.1f} MB/s")
    if record.get("eta_s") is not None:
        parts.append(f"{record['eta_s']:.0f} s left")
    return ", ".join(parts)


def _parse(text: str) -> Values:
    try:
        record = json.loads(text)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


# A guest of a container manager shares its host's boot id: the start of its first process tells restarts apart.
_BOOT = 'echo "$(cat /proc/sys/kernel/random/boot_id)-$(cut -d" " -f22 /proc/1/stat)"'

_START = f"""
rm -f {{file}}
systemctl reset-failed {{unit}} 2>/dev/null || true
systemctl {{verb}} --no-block {{unit}}
{_BOOT}
"""

_SHOW = f"""
systemctl show -P ActiveState {{unit}}
systemctl show -P Job {{unit}} | sed 's/^0$//'
{_BOOT}
cat {{file}} 2>/dev/null || true
"""

# The program's own last words: after a few restarts systemd's would push them out. With --since, -n means the first.
_JOURNAL = """
since=$(systemctl show --timestamp=unix -P InactiveExitTimestamp {unit})
words=$(journalctl --since "${{since:-today}}" --no-pager -q -o cat _SYSTEMD_UNIT={unit} 2>/dev/null | tail -n 6)
[ -n "$words" ] || words=$(journalctl -n 3 --no-pager -q -o cat -u {unit} 2>/dev/null || true)
printf '%s\\n' "$words"
"""
