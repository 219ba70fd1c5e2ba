"""Part of the probe: units, and their processes as the kernel shows them."""

# os starts faster than pathlib, and every preview runs a probe.
# ruff: noqa: PTH115, PTH119, PTH207, PLR2004

import contextlib
import glob
import os
import pwd
import re
from typing import Any

from pulumi_vllm.host.probe_reading import parsed, text

CGROUPS = "/sys/fs/cgroup"
LIMITS = {"NOFILE": "Max open files", "MEMLOCK": "Max locked memory", "CORE": "Max core file size"}
# By number, from include/uapi/linux/capability.h.
CAPABILITIES = (
    *("chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap"),
    *(
        "linux_immutable",
        "net_bind_service",
        "net_broadcast",
        "net_admin",
        "net_raw",
        "ipc_lock",
        "ipc_owner",
    ),
    *(
        "sys_module",
        "sys_rawio",
        "sys_chroot",
        "sys_ptrace",
        "sys_pacct",
        "sys_admin",
        "sys_boot",
        "sys_nice",
    ),
    *(
        "sys_resource",
        "sys_time",
        "sys_tty_config",
        "mknod",
        "lease",
        "audit_write",
        "audit_control",
        "setfcap",
    ),
    *("mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf"),
    "checkpoint_restore",
)


def boot_identity() -> str:
    """Return what `boot_identity.PRINT_BOOT_IDENTITY` prints: it changes with every boot of the host."""
    return f"{text('/proc/sys/kernel/random/boot_id').strip()}-{start_ticks('1')}"


def start_ticks(pid: str) -> int:
    """Return when a process started, in clock ticks since the kernel did; 0 where that is not known."""
    fields = text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 else 0


def engine_units(patterns: "list[str]", units_directory: str) -> "list[str]":
    """Return the engines that run or start at boot, also those that nobody declared."""
    slices = (f"{CGROUPS}/system.slice", f"{CGROUPS}/system.slice/system-*.slice")
    folders = (*slices, f"{units_directory}/multi-user.target.wants")
    found = (glob.glob(f"{folder}/{pattern}") for folder in folders for pattern in patterns)
    return sorted({os.path.basename(path) for paths in found for path in paths})


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


def process(pid: str) -> "dict[str, Any] | None":
    """Return user, sandbox and limits of a process, as the kernel shows them, or None if it has ended."""
    status = dict(re.findall(r"^(\w+):\s*(\S+)", text(f"/proc/{pid}/status"), re.MULTILINE))
    user = status.get("Uid", "")
    with contextlib.suppress(KeyError, ValueError):
        user = pwd.getpwuid(int(user)).pw_name
    cgroup = text(f"/proc/{pid}/cgroup").partition("::")[2].strip()
    try:
        return {
            "user": user,
            "no_new_privileges": status["NoNewPrivs"] == "1",
            "seccomp": status["Seccomp"] != "0",
            "capabilities": capabilities(int(status["CapBnd"], 16) | int(status["CapPrm"], 16)),
            # This program sees the mounts of the host.
            "own_mounts": os.readlink(f"/proc/{pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt"),
            "root": os.readlink(f"/proc/{pid}/root"),
            "limits": limits(text(f"/proc/{pid}/limits")),
            "highest_limits": limits(text("/proc/1/limits")),
            "cgroup": cgroup,
            "cgroup_limits": cgroup_limits(f"{CGROUPS}{cgroup}"),
        }
    except (KeyError, OSError):
        return None


def capabilities(mask_of_bits: int) -> list[str]:
    """Return the names of capabilities, or their numbers where this program does not know them."""
    numbers = (number for number in range(64) if mask_of_bits >> number & 1)
    return [f"cap_{CAPABILITIES[one]}" if one < len(CAPABILITIES) else f"cap_{one}" for one in numbers]


def limits(shown: str) -> dict[str, str]:
    """Return the hard limits of a process by systemd's names."""
    found = dict(re.findall(r"^(Max [a-z ]+?)  +\S+ +(\S+)", shown, re.MULTILINE))
    return {name: found[title] for name, title in LIMITS.items() if title in found}


def cgroup_limits(folder: str) -> dict[str, str]:
    """Return the limits of a control group, for each controller that is on."""
    found = {name: text(f"{folder}/{name}").split() for name in ("memory.max", "pids.max", "cpu.max")}
    return {name: words[0] for name, words in found.items() if words}


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
