"""Instances, volumes and SSH keys as the API shows them. Unknown fields are ignored; missing ones are None."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pulumi_vllm.plan.card_names import card_name
from pulumi_vllm.plan.offer import Offer, mountable
from pulumi_vllm.spheron import json_fields as fields
from pulumi_vllm.spheron.errors import CloudError
from pulumi_vllm.spheron.providers import mount_kind

if TYPE_CHECKING:
    from collections.abc import Mapping

GONE = frozenset({"terminated", "terminated-provider"})
TERMINAL = GONE | {"failed"}
STATUSES = TERMINAL | {"deploying", "running", "stopped"}


@dataclass(frozen=True, slots=True)
class InstanceRequest:
    """One instance to rent. Region and operating system are spelled as in the offer."""

    name: str
    offer: Offer
    region: str
    operating_system: str
    ssh_key_id: str
    cloud_init: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Instance:
    """A rented machine. It may have an address long before anything answers there."""

    id: str
    name: str
    provider: str
    gpu_type: str
    gpu_count: int
    offer_id: str
    region: str
    status: str
    address: str | None
    user: str | None
    port: int
    usd_per_hour: float | None
    instance_type: str
    created_at: str | None
    stopped_at: str | None = None
    usd: float | None = None
    """What the cloud has charged for it so far."""

    @property
    def terminal(self) -> bool:
        """Whether it will never run again: failed, terminated, or reclaimed by its provider."""
        return self.status in TERMINAL

    @property
    def gone(self) -> bool:
        """Whether it no longer bills. A failed one still needs its DELETE."""
        return self.status in GONE

    @property
    def reclaimed(self) -> bool:
        """Whether its provider terminated it."""
        return self.status == "terminated-provider"

    @property
    def gpu(self) -> str:
        """GPU as a stack file names it: H200 for H200_SXM5."""
        return card_name(self.gpu_type)

    @property
    def billing(self) -> str:
        """How it is billed: spot or on-demand."""
        return "spot" if self.instance_type == "SPOT" else "on-demand"


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume. Attach, detach and delete take `handle`; `id` is the API's database key."""

    id: str
    handle: str
    name: str
    provider: str
    region: str
    size_gb: int
    status: str
    usd_per_gb_hour: float | None
    attached_to: tuple[str, ...]
    mount_tag: str | None
    created_at: str | None = None

    @property
    def mountable(self) -> bool:
        """Whether this version can mount it."""
        return mountable(mount_kind(self.provider))

    @property
    def usd_per_hour(self) -> float | None:
        """Price of the whole volume."""
        return round(self.usd_per_gb_hour * self.size_gb, 6) if self.usd_per_gb_hour else None


@dataclass(frozen=True, slots=True)
class SshKey:
    """A registered public key. Lists may leave the key itself out."""

    id: str
    name: str
    public_key: str | None

    def is_same_key(self, public_key: str) -> bool:
        """Compare type and key. The comment is free text, and the API's fingerprint was observed to be constant."""
        return self.public_key is not None and self.public_key.split()[:2] == public_key.split()[:2]


@dataclass(frozen=True, slots=True)
class Termination:
    """Whether an instance may be terminated now, and if not, in how many minutes."""

    allowed: bool
    remaining_min: int
    minimum_min: int | None


def instance(item: fields.Record, *, action: str) -> Instance:
    """Return an instance from one JSON object.

    Raises:
        CloudError: it has no id or no status.
    """
    found = fields.text(item, "id", "_id", "deploymentId")
    status = fields.text(item, "status")
    if found is None or status is None:
        raise CloudError(
            f"{action}: the cloud answered with an instance without id or status", effect_unknown=True
        )
    user, port = _login(fields.text(item, "sshCommand") or "")
    return Instance(
        id=found,
        name=fields.text(item, "name") or "",
        provider=fields.text(item, "provider", "providerId") or "",
        gpu_type=fields.text(item, "gpuType", "gpuModelId") or "",
        gpu_count=fields.integer(item, "gpuCount") or 0,
        offer_id=fields.text(item, "offerId") or "",
        region=fields.text(item, "region") or "",
        status=status,
        address=fields.text(item, "ipAddress"),
        user=fields.text(item, "user") or user,
        port=fields.integer(item, "sshPort") or port or 22,
        usd_per_hour=fields.number(item, "hourlyRate"),
        instance_type=fields.text(item, "instanceType") or "",
        created_at=fields.text(item, "createdAt"),
        stopped_at=fields.text(item, "stoppedAt"),
        usd=fields.number(item, "totalCost"),
    )


def volume(item: fields.Record, *, action: str) -> Volume:
    """Return a volume from one JSON object.

    Raises:
        CloudError: it has no id.
    """
    found = fields.text(item, "id", "_id")
    handle = fields.text(item, "volumeId")
    if found is None and handle is None:
        raise CloudError(f"{action}: the cloud answered with a volume without an id", effect_unknown=True)
    name = fields.text(item, "name") or ""
    provider = fields.text(item, "provider", "providerId") or ""
    tag = fields.text(fields.nested(item, "extras"), "mountTag")
    if tag is None and mount_kind(provider) == "virtiofs":
        tag = re.sub(r"[^A-Za-z0-9]", "", name) or None
    return Volume(
        id=found or str(handle),
        handle=handle or str(found),
        name=name,
        provider=provider,
        region=fields.text(item, "region") or "",
        size_gb=fields.integer(item, "sizeInGb") or 0,
        status=fields.text(item, "status") or "",
        usd_per_gb_hour=fields.number(item, "hourlyRate", "hourlyRatePerGb"),
        attached_to=fields.texts(item, "attachedToDeploymentIds"),
        mount_tag=tag,
        created_at=fields.text(item, "createdAt"),
    )


def ssh_key(item: fields.Record, *, action: str) -> SshKey:
    """Return an SSH key from one JSON object.

    Raises:
        CloudError: it has no id.
    """
    found = fields.text(item, "id", "_id")
    if found is None:
        raise CloudError(f"{action}: the cloud answered with an SSH key without an id", effect_unknown=True)
    return SshKey(found, fields.text(item, "name") or "", fields.text(item, "publicKey"))


def _login(command: str) -> tuple[str | None, int | None]:
    """Return user and port from a command such as `ssh -p 2222 ubuntu@192.0.2.7`, which some providers leave out."""
    user = re.search(r"(?:^|\s)([a-z_][a-z0-9_-]*)@", command)
    port = re.search(r"\s-p\s*(\d{1,5})\b", command)
    return (user[1] if user else None), (int(port[1]) if port else None)
