"""Volumes of the local cloud: block devices and shares, each a sparse image file.

API (thread-safe; attach and detach through `Machines.attach` and `Machines.detach`)::

    disks = Disks(state_dir)                              (machines.disks is one)
    disks.create(volume_id, size_gb, kind, tag=None) -> Disk    kind: "block" | "share"; idempotent by id
    disks.get(volume_id) -> Disk | None
    disks.list() -> tuple[Disk, ...]
    disks.delete(volume_id)                               refuses while attached; no error when gone
    Disk(id, size_gb, kind, tag, machine, device)         machine and device are None while not attached
    DiskError: a sentence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["block", "share"]


class DiskError(Exception):
    """A sentence: which volume, what happened, what to do."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A volume and where it is attached."""

    id: str
    size_gb: int
    kind: Kind
    tag: str
    machine: str | None = None
    device: str | None = None
