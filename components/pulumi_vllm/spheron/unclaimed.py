"""Instances and volumes that carry our mark but are in none of the given Pulumi states, with their daily cost."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pulumi_vllm.plan.names import is_ours
from pulumi_vllm.spheron.client import Spheron

_TYPES = {"vllm:spheron:Instance", "vllm:spheron:Volume"}
_HOURS_PER_DAY = 24


class SweepError(Exception):
    """A state cannot be read, or the API key is missing."""


class Unclaimed(NamedTuple):
    """An instance or volume that carries our mark and is in none of the given states."""

    kind: str
    id: str
    name: str
    status: str
    usd_per_day: float


def client_from_environment() -> Spheron:
    """Return the client for SPHERON_API_KEY and SPHERON_URL."""
    key = os.environ.get("SPHERON_API_KEY")
    if not key:
        raise SweepError("SPHERON_API_KEY is not set; set it to a key of the Spheron API")
    return Spheron(key, url=os.environ.get("SPHERON_URL"))


def default_states() -> list[Path]:
    """Return the folder of the file backend in PULUMI_BACKEND_URL."""
    url = os.environ.get("PULUMI_BACKEND_URL", "")
    if not url.startswith("file://"):
        raise SweepError(
            "PULUMI_BACKEND_URL is not a file backend; name the states with --state "
            "(`pulumi stack export --file state.json` writes one per stack)"
        )
    return [Path(url.removeprefix("file://")).expanduser()]


def known_ids(paths: Sequence[Path]) -> set[str]:
    """Return the ids of all instances and volumes in the states at these paths. Folders are searched.

    Raises:
        SweepError: a path is missing or holds no state. Without it, everything in that state would be reported.
    """
    known: set[str] = set()
    for path in paths:
        if not path.exists():
            raise SweepError(
                f"{path}: not found; name a file of `pulumi stack export`, or a backend's folder"
            )
        files = sorted(path.glob("**/.pulumi/stacks/**/*.json")) if path.is_dir() else [path]
        for file in files:
            known |= {
                str(resource.get("id")) for resource in _resources(file) if resource.get("type") in _TYPES
            }
    return known


def unclaimed(cloud: Spheron, known: set[str]) -> list[Unclaimed]:
    """Return our live instances and volumes whose id is not in `known`, the most expensive first."""
    found = [*_instances(cloud, known), *_volumes(cloud, known)]
    return sorted(found, key=lambda row: -row.usd_per_day)


def _resources(file: Path) -> list[dict[str, Any]]:
    try:
        document = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise SweepError(f"{file}: cannot be read as a state: {error}") from None
    if not isinstance(document, dict) or not {"checkpoint", "deployment"} & document.keys():
        raise SweepError(f"{file}: not a state; name a file of `pulumi stack export`, or a backend's folder")
    state = document.get("deployment") or (document.get("checkpoint") or {}).get("latest") or {}
    resources: list[dict[str, Any]] = state.get("resources") or []
    return resources


def _instances(cloud: Spheron, known: set[str]) -> Iterable[Unclaimed]:
    for instance in cloud.instances.list():
        if is_ours(instance.name) and not instance.gone and instance.id not in known:
            per_day = (instance.usd_per_hour or 0.0) * _HOURS_PER_DAY
            yield Unclaimed("instance", instance.id, instance.name, instance.status, per_day)


def _volumes(cloud: Spheron, known: set[str]) -> Iterable[Unclaimed]:
    for volume in cloud.volumes.list():
        if is_ours(volume.name) and volume.status not in {"deleting", "deleted"} and volume.id not in known:
            per_day = (volume.usd_per_hour or 0.0) * _HOURS_PER_DAY
            yield Unclaimed("volume", volume.id, volume.name, volume.status, per_day)
