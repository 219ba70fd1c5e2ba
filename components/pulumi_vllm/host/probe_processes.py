"""Part of the probe: units, and their processes as the kernel shows them."""

# ruff: noqa: PLR2004

import contextlib
import pwd
import re
from typing import Any

from pulumi_vllm.host.probe_reading import parsed, text


def boot_identity() -> str:
    """Return what `boot_identity.PRINT_BOOT_IDENTITY` prints: it changes with every boot of the host."""
    return f"{text('/proc/sys/kernel/random/boot_id').strip()}-{start_ticks('1')}"


def start_ticks(pid: str) -> int:
    """Return when a process started, in clock ticks since the kernel did; 0 where that is not known."""
    fields = text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 else 0


def units(shown: str, starts: str) -> dict[str, Any]:
    """Return the properties of each unit, its process, and the files with which it was started."""
    found = {}
    for block in shown.strip().split("\n\n"):
        unit: dict[str, Any] = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if not unit.get("Id"):
            continue
        pid = unit.get("MainPID", "0")
        if pid.isdigit() and pid != "0":
            unit["argv"] = [part for part in text(f"/proc/{pid}/cmdline").split("\0") if part]
            unit["declared"] = expanded(unit.get("ExecStart", ""), pid)
            unit["process"] = process(pid)
            record = parsed(text(f"{starts}/{unit['Id']}.json"))
            if isinstance(record, dict) and record.get("invocation") == unit.get("InvocationID"):
                unit["record"] = record
        found[unit["Id"]] = unit
    return found


def process(pid: str) -> dict[str, Any]:
    """Return user and sandbox of a process, as the kernel shows them."""
    status = dict(re.findall(r"^(\w+):\s*(\S+)", text(f"/proc/{pid}/status"), re.MULTILINE))
    user = status.get("Uid", "")
    with contextlib.suppress(KeyError, ValueError):
        user = pwd.getpwuid(int(user)).pw_name
    return {"user": user, "no_new_privileges": status.get("NoNewPrivs") == "1"}


def expanded(exec_start: str, pid: str) -> str:
    """Return the declared command line, with variables expanded as the process got them."""
    match = re.search(r"argv\[\]=(.*?) ; ignore_errors=", exec_start, re.DOTALL)
    if match is None:
        return ""
    line = match.group(1)
    if "$" not in line:
        return line
    pairs = (entry.split("=", 1) for entry in text(f"/proc/{pid}/environ").split("\0") if "=" in entry)
    values = dict(pairs)
    return re.sub(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?", lambda name: values.get(name.group(1), ""), line)
