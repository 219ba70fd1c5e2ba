"""The records of SSH keys, volumes and deployments, and their representation in the API."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pulumi_vllm_local.api.clock import iso

if TYPE_CHECKING:
    from pulumi_vllm_local.api.profiles import Profile

ACTIVE = ("deploying", "running", "stopped")
TERMINAL = ("terminated", "failed", "terminated-provider")

# "wanted": not booted yet; "up": booted once; "gone": destroyed.
MachineIntent = Literal["wanted", "up", "gone"]
# "device": the machine has a device; "relation": the attachment exists only in the records.
Attachment = Literal["device", "relation"]


@dataclass(slots=True)
class SshKey:
    """A registered public key."""

    id: str
    name: str
    public_key: str
    team_id: str
    created_at: float
    temporary: bool = False

    def view(self) -> dict[str, Any]:
        """Return the key as the API shows it; the live service has this fingerprint for every key."""
        return {
            "id": self.id,
            "name": self.name,
            "publicKey": self.public_key,
            "fingerprint": "e3:b0:c4:42:98:fc:1c:14:9a:fb:f4:c8:99:6f:b9:24",
            "teamId": self.team_id,
            "createdAt": iso(self.created_at),
        }


@dataclass(slots=True)
class Volume:
    """A volume; attach, detach and delete take its `handle`, not its id."""

    id: str
    handle: str
    name: str
    team_id: str
    provider: str
    region: str
    size_gb: int
    hourly_rate: float
    created_at: float
    attachments: dict[str, Attachment] = field(default_factory=dict)
    deleting: bool = False

    @property
    def mount_tag(self) -> str:
        """The virtiofs tag: the letters and digits of the name."""
        return "".join(letter for letter in self.name if letter.isalnum())

    def view(self) -> dict[str, Any]:
        """Return the volume as the API shows it."""
        return {
            "id": self.id,
            "volumeId": self.handle,
            "name": self.name,
            "teamId": self.team_id,
            "providerId": self.provider,
            "region": self.region,
            "sizeInGb": self.size_gb,
            "usedCapacityBytes": 0,
            "status": "attached" if self.attachments else "available",
            "hourlyRate": self.hourly_rate,
            "attachedToDeploymentIds": list(self.attachments),
            "extras": {"mountTag": self.mount_tag},
            "createdAt": iso(self.created_at),
        }


@dataclass(slots=True)
class Deployment:
    """A rented machine; the record stays after the machine is gone."""

    id: str
    name: str
    team_id: str
    provider: str
    offer_id: str
    gpu_type: str
    gpu_count: int
    region: str
    operating_system: str
    instance_type: str
    vcpus: int
    memory_gb: int
    storage_gb: int
    hourly_rate: float
    ssh_key_id: str
    public_key: str
    created_at: float
    billed_until: float
    cloud_init: dict[str, Any] | None = None
    status: str = "deploying"
    total_cost: float = 0.0
    started_at: float | None = None
    stopped_at: float | None = None
    machine: MachineIntent = "wanted"
    address: str | None = None
    dies_at: float | None = None
    reclaim_as: str | None = None
    why: str | None = None

    @property
    def alive(self) -> bool:
        """Whether the deployment is billed."""
        return self.status in ACTIVE

    def remaining_s(self, now: float, minimum_s: float) -> float:
        """Return the virtual seconds until it may be terminated."""
        return max(0.0, self.created_at + minimum_s - now)

    def can_terminate(self, now: float, minimum_s: float) -> dict[str, Any]:
        """Return whether it may be terminated now, with times in whole minutes."""
        left = math.ceil(self.remaining_s(now, minimum_s) / 60)
        body: dict[str, Any] = {
            "canTerminate": left == 0 and self.alive,
            "runtime": int((now - self.created_at) / 60),
            "minimumRuntime": round(minimum_s / 60),
            "timeRemaining": left,
        }
        if not self.alive:
            body |= {"timeRemaining": 0, "reason": "Instance has already been terminated."}
        elif left:
            body["reason"] = "Minimum runtime not met"
        return body

    def view(self, profile: Profile, now: float, volume_handles: list[str]) -> dict[str, Any]:
        """Return the deployment as the API shows it; the fields depend on the provider."""
        address = self.address if now >= self.created_at + profile.ip_visible_after_s else None
        out: dict[str, Any] = {
            "id": self.id,
            "name": self.name,
            "providerId": self.provider,
            "gpuType": self.gpu_type,
            "gpuModelId": self.gpu_type,
            "offerId": self.offer_id,
            "gpuCount": self.gpu_count,
            "region": self.region,
            "operatingSystem": self.operating_system,
            "instanceType": self.instance_type,
            "status": self.status,
            "ipAddress": address,
            "user": profile.reported_user if address else None,
            "sshPort": profile.ssh_port if address else None,
            "sshKeyId": self.ssh_key_id,
            "volumeIds": volume_handles,
            "hourlyRate": self.hourly_rate,
            "originalHourlyRate": self.hourly_rate,
            "discountPercentage": 0,
            "hasDiscount": False,
            "totalCost": round(self.total_cost, 6),
            "lastCreditDeduction": iso(self.billed_until),
            "vcpus": self.vcpus,
            "memory": self.memory_gb,
            "storage": self.storage_gb,
            "startedAt": iso(self.started_at),
            "stoppedAt": iso(self.stopped_at),
            "createdAt": iso(self.created_at),
            "kubernetesAddon": None,
        }
        if profile.ssh_command != "absent":
            ready = profile.ssh_command == "string" and self.status == "running" and address
            out["sshCommand"] = f"ssh {profile.ssh_user}@{address}" if ready else None
        return out
