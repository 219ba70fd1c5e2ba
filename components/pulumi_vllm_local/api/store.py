"""The records of the cloud in one JSON file, saved before each action, so that a killed process loses nothing."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from pulumi_vllm_local import json_files
from pulumi_vllm_local.api.clock import VirtualClock
from pulumi_vllm_local.api.offers import Offer, default_offers
from pulumi_vllm_local.api.profiles import PROFILES, Profile
from pulumi_vllm_local.api.records import Deployment, SshKey, Volume

if TYPE_CHECKING:
    from pathlib import Path

# The clock runs on for at most this long while no process runs. Otherwise a weekend would use up the balance.
_AWAY_COUNTS_S = 60.0
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Options:
    """Limits and probabilities of the cloud; all times are virtual."""

    factor: float = 60.0
    minimum_runtime_min: float = 20.0
    requests_per_window: int = 250
    creates_per_window: int = 10
    window_s: float = 900.0
    balance: float = 10_000.0
    spot_hazard_per_hour: float = 0.0
    spot_burst_chance: float = 0.0
    balance_floor: float = 3.0
    seed: int = 0


@dataclass(slots=True)
class Store:
    """All records. Only the thread of the event loop changes them, and it calls `save` after each change."""

    path: Path | None
    api_key: str
    options: Options = field(default_factory=Options)
    team_id: str = ""
    balance: float = 0.0
    keys: dict[str, SshKey] = field(default_factory=dict)
    volumes: dict[str, Volume] = field(default_factory=dict)
    deployments: dict[str, Deployment] = field(default_factory=dict)
    offers: list[Offer] = field(default_factory=default_offers)
    profiles: dict[str, Profile] = field(default_factory=lambda: dict(PROFILES))
    clock: VirtualClock = field(init=False)

    def __post_init__(self) -> None:
        """Read the records of an earlier process."""
        self.team_id = self.team_id or new_id()
        self.balance = self.balance or self.options.balance
        start = time.time()
        if self.path is not None and self.path.exists():
            start = self._load(json.loads(self.path.read_text(encoding="utf-8")))
        self.clock = VirtualClock(self.options.factor, start)

    def _load(self, data: dict[str, Any]) -> float:
        if data.get("version") != _VERSION:
            raise ValueError(
                f"{self.path}: written by another version ({data.get('version')}); "
                "run `pulumi-vllm local down --purge` with that version, or remove the folder"
            )
        self.team_id, self.balance = data["team_id"], data["balance"]
        self.keys = {item["id"]: SshKey(**item) for item in data["keys"]}
        self.volumes = {item["handle"]: Volume(**item) for item in data["volumes"]}
        self.deployments = {item["id"]: Deployment(**item) for item in data["deployments"]}
        away: float = min(max(time.time() - data["saved_at"], 0.0), _AWAY_COUNTS_S)
        clock: float = data["clock"]
        return clock + away * self.options.factor

    def save(self) -> None:
        """Write all records."""
        if self.path is None:
            return
        data = {
            "version": _VERSION,
            "saved_at": time.time(),
            "clock": self.clock.now(),
            "team_id": self.team_id,
            "balance": self.balance,
            "keys": [asdict(key) for key in self.keys.values()],
            "volumes": [asdict(volume) for volume in self.volumes.values()],
            "deployments": [asdict(deployment) for deployment in self.deployments.values()],
        }
        json_files.write(self.path, data)

    def profile(self, provider: str) -> Profile:
        """Return the profile of a provider."""
        return self.profiles[provider]

    def minimum_s(self) -> float:
        """Return the minimum run time in virtual seconds."""
        return self.options.minimum_runtime_min * 60

    def attached(self, deployment_id: str) -> list[Volume]:
        """Return the volumes that are attached to a deployment according to the records."""
        return [volume for volume in self.volumes.values() if deployment_id in volume.attachments]

    def view(self, deployment: Deployment) -> dict[str, Any]:
        """Return a deployment as the API shows it."""
        handles = [volume.handle for volume in self.attached(deployment.id)]
        return deployment.view(self.profile(deployment.provider), self.clock.now(), handles)

    def bill(self) -> None:
        """Charge the run time since the last call; when the balance is used up, terminate everything."""
        now = self.clock.now()
        for deployment in self.deployments.values():
            if deployment.alive:
                cost = (now - deployment.billed_until) * deployment.hourly_rate / 3600
                deployment.total_cost += cost
                deployment.billed_until = now
                self.balance -= cost
        if self.balance <= 0:
            for deployment in self.deployments.values():
                if deployment.alive:
                    deployment.status, deployment.stopped_at = "terminated", now
                    deployment.why = "the team's balance is used up"


def new_id() -> str:
    """Return an id in the format of the live service."""
    return secrets.token_hex(12)
