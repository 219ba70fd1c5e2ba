"""Machines, volumes and keys as the API shows them; unknown fields are ignored, missing ones are None."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pulumi_vllm.plan.offer import Offer, mountable
from pulumi_vllm.spheron import wire
from pulumi_vllm.spheron.errors import CloudError
from pulumi_vllm.spheron.providers import mount_kind

if TYPE_CHECKING:
    from collections.abc import Mapping


GONE = frozenset({"terminated", "terminated-provider"})
TERMINAL = GONE | {"failed"}
STATUSES = TERMINAL | {"deploying", "running", "stopped"}


@dataclass(frozen=True, slots=True)
class CreateInstance:
    """One machine to rent. Region and operating system are words of the offer, verbatim."""

    name: str
    offer: Offer
    region: str
    operating_system: str
    ssh_key_id: str
    cloud_init: Mapping[str, Any] | None = None
    volume_handles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Instance:
    """A machine. `address` may be there long before anything answers on it."""

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
    hourly_rate: float | None
    instance_type: str
    volume_handles: tuple[str, ...]
    created_at: str | None

    @property
    def terminal(self) -> bool:
        """Whether it will never run again: failed, terminated, or taken by its provider."""
        return self.status in TERMINAL

    @property
    def gone(self) -> bool:
        """Whether it bills no more; a `failed` one still wants its DELETE."""
        return self.status in GONE


@dataclass(frozen=True, slots=True)
class Volume:
    """A disk or share. Attach, detach and delete want `handle`; `id` is the API's database key."""

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

    @property
    def mount_kind(self) -> str:
        """block, virtiofs or nfs."""
        return mount_kind(self.provider)

    @property
    def mountable(self) -> bool:
        """Whether this version can mount it."""
        return mountable(self.mount_kind)


@dataclass(frozen=True, slots=True)
class SshKey:
    """A registered public key; lists may leave the key itself out."""

    id: str
    name: str
    public_key: str | None


@dataclass(frozen=True, slots=True)
class Termination:
    """Whether a machine may be let go now, and if not, in how many minutes."""

    can: bool
    remaining_min: int
    minimum_min: int | None
    reason: str | None


def instance(item: wire.Record, *, action: str) -> Instance:
    """A machine from one JSON object.

    Raises:
        CloudError: it has no id or no status.
    """
    found = wire.text(item, "id", "_id", "deploymentId")
    status = wire.text(item, "status")
    if found is None or status is None:
        raise CloudError(f"{action}: the cloud showed a machine without id or status", acted=None)
    user, port = _login(wire.text(item, "sshCommand") or "")
    return Instance(
        id=found,
        name=wire.text(item, "name") or "",
        provider=wire.text(item, "provider", "providerId") or "",
        gpu_type=wire.text(item, "gpuType", "gpuModelId") or "",
        gpu_count=wire.whole(item, "gpuCount") or 0,
        offer_id=wire.text(item, "offerId") or "",
        region=wire.text(item, "region") or "",
        status=status,
        address=wire.text(item, "ipAddress"),
        user=wire.text(item, "user") or user,
        port=wire.whole(item, "sshPort") or port or 22,
        hourly_rate=wire.number(item, "hourlyRate"),
        instance_type=wire.text(item, "instanceType") or "",
        volume_handles=wire.texts(item, "volumeIds"),
        created_at=wire.text(item, "createdAt"),
    )


def volume(item: wire.Record, *, action: str) -> Volume:
    """A volume from one JSON object.

    Raises:
        CloudError: it has no id.
    """
    found = wire.text(item, "id", "_id")
    handle = wire.text(item, "volumeId")
    if found is None and handle is None:
        raise CloudError(f"{action}: the cloud showed a volume without an id", acted=None)
    name = wire.text(item, "name") or ""
    provider = wire.text(item, "provider", "providerId") or ""
    tag = wire.text(wire.inside(item, "extras"), "mountTag")
    if tag is None and mount_kind(provider) == "virtiofs":
        tag = re.sub(r"[^A-Za-z0-9]", "", name) or None
    return Volume(
        id=found or str(handle),
        handle=handle or str(found),
        name=name,
        provider=provider,
        region=wire.text(item, "region") or "",
        size_gb=wire.whole(item, "sizeInGb") or 0,
        status=wire.text(item, "status") or "",
        usd_per_gb_hour=wire.number(item, "hourlyRate", "hourlyRatePerGb"),
        attached_to=wire.texts(item, "attachedToDeploymentIds"),
        mount_tag=tag,
    )


def ssh_key(item: wire.Record, *, action: str) -> SshKey:
    """A key from one JSON object.

    Raises:
        CloudError: it has no id.
    """
    found = wire.text(item, "id", "_id")
    if found is None:
        raise CloudError(f"{action}: the cloud showed an SSH key without an id", acted=None)
    return SshKey(found, wire.text(item, "name") or "", wire.text(item, "publicKey"))


def _login(command: str) -> tuple[str | None, int | None]:
    """User and port of `ssh -p 2222 ubuntu@192.0.2.7`; the command is missing on some providers."""
    user = re.search(r"(?:^|\s)([a-z_][a-z0-9_-]*)@", command)
    port = re.search(r"\s-p\s*(\d{1,5})\b", command)
    return (user[1] if user else None), (int(port[1]) if port else None)
