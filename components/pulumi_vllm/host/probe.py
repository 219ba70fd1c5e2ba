"""What a probe looks at. The places and units that are ours are always part of it, so that one probe serves all."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

UNITS = (
    "models.mount",
    "vllm-install.service",
    "vllm-weights.service",
    "vllm-preflight.service",
    "vllm.service",
    "haproxy.service",
    "vllm-readiness.service",
    "vllm-firewall.service",
)
FOLDERS = ("/etc/pulumi-vllm", "/usr/local/lib/pulumi-vllm")
WEIGHTS = "/models/weights"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Paths of files, names of units, folders of weights; over and above the ones that are ours by name."""

    paths: tuple[str, ...] = ()
    units: tuple[str, ...] = UNITS
    folders: tuple[str, ...] = FOLDERS
    weights: tuple[str, ...] = ()

    def to_json(self) -> str:
        """As the probe program takes it."""
        return json.dumps({**asdict(self), "weights_root": WEIGHTS}, sort_keys=True)
