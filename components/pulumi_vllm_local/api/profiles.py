"""How the providers behind the API differ: latencies (virtual seconds), logins, volumes, reclaims."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

CloudInit = Literal["dropped", "executed"]
VolumeKind = Literal["share", "block"]
SshCommand = Literal["null", "string", "absent"]


@dataclass(frozen=True, slots=True)
class Profile:
    """One provider. Values that were never measured are assumptions, so tests can change each of them."""

    name: str
    post_latency_s: float
    ip_visible_after_s: float
    running_after_s: float
    ssh_user: str
    reported_user: str | None
    ssh_port: int | None
    ssh_command: SshCommand
    cloud_init: CloudInit
    volume: VolumeKind | None
    attach_restarts: bool
    attaches_at_create: bool
    volumes_per_machine: int | None
    many_writers: bool
    usd_per_gb_hour: float | None
    volume_regions: tuple[str, ...]
    reclaim_notice_s: float
    clears_stale_attachments: bool = False
    accepts_volume_id: bool = False
    # Faults of a provider: a machine that never answers on SSH, or that restarts with another address.
    ssh_answers: bool = True
    address_stays: bool = True
    volume_grows: bool = False  # the documentation says "where the provider allows it"; never observed

    def with_changes(self, changes: Mapping[str, object]) -> Profile:
        """Return the profile with some fields changed."""
        unknown = sorted(set(changes) - set(self.__dataclass_fields__))
        if unknown:
            raise ValueError(f"profile {self.name}: there is no field {', '.join(unknown)}")
        return replace(self, **changes)  # type: ignore[arg-type]


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(
            name="spheron-es", post_latency_s=25, ip_visible_after_s=30, running_after_s=180,
            ssh_user="ubuntu", reported_user=None, ssh_port=None, ssh_command="null",
            cloud_init="dropped", volume="share", attach_restarts=True, attaches_at_create=False,
            volumes_per_machine=None, many_writers=False, usd_per_gb_hour=0.0001320313,
            volume_regions=("US Central 1", "EU North 1"), reclaim_notice_s=60,
        ),
        # Its live volumes are NFS shares. Here they are block disks, so that both kinds of volume exist.
        Profile(
            name="data-crunch", post_latency_s=20, ip_visible_after_s=30, running_after_s=240,
            ssh_user="root", reported_user="root", ssh_port=22, ssh_command="string",
            cloud_init="executed", volume="block", attach_restarts=False, attaches_at_create=True,
            volumes_per_machine=None, many_writers=False, usd_per_gb_hour=0.000109,
            volume_regions=("Finland 3", "Iceland 1"), reclaim_notice_s=0,
        ),
        Profile(
            name="massed-compute", post_latency_s=10, ip_visible_after_s=1, running_after_s=150,
            ssh_user="ubuntu", reported_user=None, ssh_port=22, ssh_command="absent",
            cloud_init="executed", volume=None, attach_restarts=False, attaches_at_create=False,
            volumes_per_machine=0, many_writers=False, usd_per_gb_hour=None,
            volume_regions=(), reclaim_notice_s=0,
        ),
        Profile(
            name="voltage-park", post_latency_s=40, ip_visible_after_s=60, running_after_s=900,
            ssh_user="ubuntu", reported_user="ubuntu", ssh_port=22, ssh_command="string",
            cloud_init="dropped", volume="block", attach_restarts=False, attaches_at_create=True,
            volumes_per_machine=1, many_writers=False, usd_per_gb_hour=0.00011,
            volume_regions=("us-east-virginia-1",), reclaim_notice_s=0,
        ),
    )
}  # fmt: skip
