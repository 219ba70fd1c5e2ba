"""Following a long oneshot unit on the host: start it, show its progress, give its own words when it fails."""

import json
from typing import Any

from .resource import Call, UserError, Values

_LOOK_S = 2.0
_SILENT_S = 1800.0  # without a byte or a phase: something hangs


async def follow(
    call: Call, host: Any, unit: str, progress_file: str | None, *, restart: bool = False
) -> Values:
    """Start the unit and watch it to its end; returns its last progress record.

    Raises:
        UserError: it failed; ends with its own sentence, or with its last journal lines.
        HostError: the machine went away.
    """
    verb = "restart" if restart else "start"
    await host.run(
        f"systemctl reset-failed {unit} 2>/dev/null || true; systemctl {verb} --no-block {unit}", timeout_s=60
    )
    last: Values = {}
    silent = 0.0
    while True:
        await call.sleep(_LOOK_S)
        shown = await host.run(_SHOW.format(unit=unit, file=progress_file or "/dev/null"), timeout_s=60)
        head, _, tail = shown.stdout.partition("\n")
        state, _, job = head.partition(" ")
        record = _parse(tail) or last
        silent = silent + _LOOK_S if record == last else 0.0
        last = record
        if state == "active":
            return last
        if state == "failed" or (state == "inactive" and not job):
            raise UserError(f"{call.name}: {unit} failed: {await why(host, unit, last)}")
        if silent > _SILENT_S:
            raise UserError(
                f"{call.name}: {unit} showed no progress for {_SILENT_S / 60:.0f} min; look at `journalctl -u {unit}`"
            )
        await call.progress(describe(unit, last))


async def why(host: Any, unit: str, record: Values | None = None) -> str:
    """The unit's own sentence, or its last journal lines without anything that looks like a secret."""
    if record and record.get("error"):
        return str(record["error"])
    from pulumi_vllm.host.mask import mask  # noqa: PLC0415

    journal = await host.run(
        f"journalctl -u {unit} -n 12 --no-pager -o cat 2>/dev/null || true", timeout_s=60, check=False
    )
    lines = [line.strip() for line in journal.stdout.splitlines() if line.strip()]
    return mask(" | ".join(lines[-6:])) or "no word in its journal"


def describe(unit: str, record: Values) -> str:
    """One line: phase, files, bytes, rate, time left."""
    if not record:
        return f"waiting for {unit}"
    parts = [str(record.get("phase") or unit)]
    if record.get("files"):
        parts.append(f"{record.get('files_done', 0)}/{record['files']} files")
    if record.get("bytes"):
        parts.append(f"{record.get('bytes_done', 0) / 1e9:.2f}/{record['bytes'] / 1e9:.2f} GB")
    if record.get("rate_bytes_s"):
        parts.append(f"{record['rate_bytes_s'] / 1e6:.0f} MB/s")
    if record.get("eta_s") is not None:
        parts.append(f"{record['eta_s']:.0f} s left")
    return ", ".join(parts)


def _parse(text: str) -> Values:
    try:
        record = json.loads(text)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


_SHOW = """
echo "$(systemctl show -P ActiveState {unit}) $(systemctl show -P Job {unit} | sed 's/^0$//')"
cat {file} 2>/dev/null || true
"""
