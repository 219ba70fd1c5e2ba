"""Machines of the local cloud: systemd-nspawn guests that outlive the process that made them.

API (thread-safe; every call is idempotent where that makes sense; errors are `MachineError` sentences)::

    MachineSpec(id, name, layers=("engine-fake",), user="ubuntu"|"root", ssh_public_key="ssh-ed25519 …",
                user_data={…}|None, gpu=None|"h200"|"h100", gpu_count=0)
    Address(host, ipv6, port, user)
    Machine(spec, address, status, boots, exit_code)      status: see Status

    machines = Machines(state_dir)                        network comes up with the first create
    machines.disks                                        Disks of the same state folder
    machines.gateway                                      IPv4 of the bridge (brings it up): bind the hub here
    machines.create(spec) -> Address                      disk and address only, not booted; idempotent by id
    machines.start(id)                                    boots; returns at once
    machines.answers(id) -> bool                          sshd sends its banner (0.5 s at most)
    machines.stop(id, grace=90.0)                         clean power-off; after grace seconds the plug is pulled
    machines.kill(id)                                     preemption without notice, disk stays
    machines.reboot(id)                                   asks the guest's systemd; returns at once
    machines.pause(id) / unpause(id)                      freezes the guest and drops its link
    machines.destroy(id)                                  machine and its disk; volumes are detached, stay
    machines.get(id) -> Machine | None
    machines.state(id) -> Status                          GONE for an unknown id
    machines.list() -> tuple[Machine, ...]
    machines.attach(id, volume_id) -> str                 device (/dev/vdb) or share tag; a share restarts a
                                                          running machine (stop, bind, start)
    machines.detach(id, volume_id, force=False)           refuses while mounted unless forced
    machines.console(id) -> Path                          console log
    machines.reconcile() -> tuple[str, ...]               after a crash: adopt, restart or clean; what was done
    machines.down(purge=False)                            nothing left running or mounted; purge also volumes
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class MachineError(Exception):
    """A sentence: which machine, what happened, what to do."""


class Status(StrEnum):
    """What a machine is doing now."""

    CREATED = "created"  # never booted
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"  # powered off, by us or from within
    PREEMPTED = "preempted"  # killed by us
    FAILED = "failed"  # ended and nobody asked for it
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Address:
    """Where the machine's sshd listens."""

    host: str
    ipv6: str
    port: int
    user: str


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """What the cloud was asked for."""

    id: str
    name: str
    layers: tuple[str, ...]
    user: str
    ssh_public_key: str
    user_data: Mapping[str, Any] | None = None
    gpu: str | None = None
    gpu_count: int = 0


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine and what it is doing."""

    spec: MachineSpec
    address: Address
    status: Status
    boots: int
    exit_code: int | None
