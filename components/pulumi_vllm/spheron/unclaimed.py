"""What we rented and no state remembers: found by our mark in the name, priced per day."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pulumi_vllm.plan.names import is_ours
from pulumi_vllm.spheron.client import Spheron

_KINDS = {"vllm:spheron:Instance", "vllm:spheron:Volume"}
_HOURS_PER_DAY = 24


class SweepError(Exception):
    """A sentence about a state that can't be read, or a missing key."""


class Leftover(NamedTuple):
    """A machine or disk that carries our mark and is in none of the given states."""

    kind: str
    id: str
    name: str
    status: str
    usd_per_day: float


def cloud_from_environment() -> Spheron:
    """The client that SPHERON_API_KEY and SPHERON_URL name."""
    key = os.environ.get("SPHERON_API_KEY")
    if not key:
        raise SweepError("no key for the Spheron API; set SPHERON_API_KEY")
    return Spheron(os.environ.get("SPHERON_URL") or "https://app.spheron.ai", key)


def default_states() -> list[Path]:
    """The file backend that is in use."""
    url = os.environ.get("PULUMI_BACKEND_URL", "")
    if not url.startswith("file://"):
        raise SweepError(
            "which states? give --state (`pulumi stack export --file state.json` writes one per stack)"
        )
    return [Path(url.removeprefix("file://")).expanduser()]


def known_ids(paths: Sequence[Path]) -> set[str]:
    """Ids of all machines and disks in the states at these paths; a folder is searched.

    Raises:
        SweepError: a path is missing or holds no state: a sweep that overlooks a state calls its machines lost.
    """
    known: set[str] = set()
    for path in paths:
        if not path.exists():
            raise SweepError(
                f"{path}: no such state; give a file of `pulumi stack export`, or a backend's folder"
            )
        files = sorted(path.glob("**/.pulumi/stacks/**/*.json")) if path.is_dir() else [path]
        for file in files:
            known |= {
                str(resource.get("id")) for resource in _resources(file) if resource.get("type") in _KINDS
            }
    return known


def leftovers(cloud: Spheron, known: set[str]) -> list[Leftover]:
    """Live machines and disks of ours outside `known`, dearest first."""
    found = [*_machines(cloud, known), *_volumes(cloud, known)]
    return sorted(found, key=lambda row: -row.usd_per_day)


def _resources(file: Path) -> list[dict[str, Any]]:
    try:
        document = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise SweepError(f"{file}: can't be read as a state: {error}") from None
    if not isinstance(document, dict) or not {"checkpoint", "deployment"} & document.keys():
        raise SweepError(f"{file}: not a state; give a file of `pulumi stack export`, or a backend's folder")
    state = document.get("deployment") or (document.get("checkpoint") or {}).get("latest") or {}
    resources: list[dict[str, Any]] = state.get("resources") or []
    return resources


def _machines(cloud: Spheron, known: set[str]) -> Iterable[Leftover]:
    for machine in cloud.instances():
        if is_ours(machine.name) and not machine.gone and machine.id not in known:
            per_day = (machine.hourly_rate or 0.0) * _HOURS_PER_DAY
            yield Leftover("machine", machine.id, machine.name, machine.status, per_day)


def _volumes(cloud: Spheron, known: set[str]) -> Iterable[Leftover]:
    for volume in cloud.volumes():
        if is_ours(volume.name) and volume.status not in {"deleting", "deleted"} and volume.id not in known:
            per_day = (volume.usd_per_gb_hour or 0.0) * volume.size_gb * _HOURS_PER_DAY
            yield Leftover("volume", volume.id, volume.name, volume.status, per_day)
