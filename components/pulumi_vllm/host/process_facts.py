"""What the kernel shows of a unit's main process, and what systemd was to give it. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LIMITS = {"NOFILE": "open files", "MEMLOCK": "locked memory", "CORE": "core file size"}
"""Limits of a process: systemd's name, and words."""
_CGROUP = {"MemoryMax": "memory.max", "TasksMax": "pids.max", "CPUQuotaPerSecUSec": "cpu.max"}
"""Limits of a control group: systemd's property, and the kernel's file."""
_PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class ProcessFact:
    """The main process of a unit, and the properties of the unit that systemd read."""

    user: str
    no_new_privileges: bool
    seccomp: bool
    """Whether a filter of system calls is on."""
    capabilities: tuple[str, ...]
    """Capabilities that it has or can get, as in cap_net_admin."""
    own_mounts: bool
    """Whether it sees other mounts than the rest of the host."""
    root: str
    limits: Mapping[str, str]
    """Hard limits, by systemd's name without its prefix Limit."""
    highest_limits: Mapping[str, str]
    """Those of systemd itself, which in a container can't give a process more."""
    cgroup: str
    cgroup_limits: Mapping[str, str]
    """Limits of its control group, by the kernel's file; without those that this host can't set."""
    unit: Mapping[str, str]
    """Properties of the unit, by systemd's name."""

    @classmethod
    def parse(cls, process: Mapping[str, Any], unit: Mapping[str, Any]) -> ProcessFact:
        """Parse what a probe reports.

        Raises:
            KeyError: something is missing.
        """
        return cls(
            user=str(process["user"]),
            no_new_privileges=bool(process["no_new_privileges"]),
            seccomp=bool(process["seccomp"]),
            capabilities=tuple(map(str, process["capabilities"])),
            own_mounts=bool(process["own_mounts"]),
            root=str(process["root"]),
            limits=_texts(process["limits"]),
            highest_limits=_texts(process["highest_limits"]),
            cgroup=str(process["cgroup"]),
            cgroup_limits=_texts(process["cgroup_limits"]),
            unit={name: value for name, value in unit.items() if isinstance(value, str)},
        )

    def outside_of_sandbox(self) -> Iterator[str]:
        """Compare the process with its unit. Yields what was observed and declared, as "has …, declared …"."""
        if not self.no_new_privileges and self.unit.get("NoNewPrivileges") == "yes":
            yield "lets the process gain privileges, declared NoNewPrivileges=yes"
        if not self.seccomp and self.unit.get("SystemCallArchitectures"):
            yield "lets the process make every system call, declared SystemCallFilter"
        declared = self.unit.get("CapabilityBoundingSet", "").split()
        more = [name for name in self.capabilities if name not in declared]
        if more:
            yield f"has the capabilities {' '.join(more)}, declared {' '.join(declared) or 'none'}"
        if not self.own_mounts and self.unit.get("ProtectSystem", "no") != "no":
            yield f"sees the mounts of the host, declared ProtectSystem={self.unit['ProtectSystem']}"
        if self.root != "/":
            yield f"has the root directory {self.root}, declared /"
        # A host with control groups of version 1 only shows none.
        if self.cgroup and self.cgroup != self.unit.get("ControlGroup", self.cgroup):
            yield f"runs in the control group {self.cgroup}, declared {self.unit['ControlGroup']}"

    def other_limits(self) -> Iterator[str]:
        """Compare the limits of the process and of its control group with the unit, as "open files 1, declared 2"."""
        for name, words in _LIMITS.items():
            observed, declared = self.limits.get(name), self.unit.get(f"Limit{name}", "")
            highest = self.highest_limits.get(name, "unlimited")
            if observed and declared and _number(observed) != min(_number(declared), _number(highest)):
                yield f"{words} {observed}, declared {declared}"
        for name, file in _CGROUP.items():
            observed, declared = self.cgroup_limits.get(file), self.unit.get(name, "")
            if observed is not None and declared and not _same_limit(observed, declared):
                yield f"{file} {observed}, declared {name}={declared}"


def _texts(item: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(value) for name, value in item.items()}


def _number(limit: str) -> float:
    return float(limit) if limit.isdigit() else math.inf


def _same_limit(observed: str, declared: str) -> bool:
    """Whether the kernel has the limit of a unit. It rounds bytes down to pages."""
    if declared == "infinity" or observed == "max":
        return declared == "infinity" and observed == "max"
    if not (observed.isdigit() and declared.isdigit()):  # a share of the CPU has other units in the kernel
        return True
    return int(observed) in {int(declared), int(declared) // _PAGE_BYTES * _PAGE_BYTES}
