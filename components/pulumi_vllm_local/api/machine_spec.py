"""The container for a rented machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulumi_vllm_local.api import cloud_init
from pulumi_vllm_local.machines.containers import MachineSpec

if TYPE_CHECKING:
    from pulumi_vllm_local.api.profiles import Profile
    from pulumi_vllm_local.api.records import Deployment

_GPU_LAYERS = ("h100", "h200")


def machine_spec(deployment: Deployment, profile: Profile, engine: str) -> MachineSpec:
    """Describe the container for a deployment; machines with GPUs always get the fake engine."""
    gpu = deployment.gpu_type.partition("_")[0].lower()
    engine = engine if deployment.gpu_count == 0 else "fake"
    sent = deployment.cloud_init if profile.cloud_init == "executed" else None
    return MachineSpec(
        id=deployment.id,
        name=deployment.name,
        layers=() if engine == "none" else (f"engine-{engine}",),
        user=profile.ssh_user,
        ssh_public_key=deployment.public_key,
        user_data=cloud_init.user_data(sent) if sent else None,
        gpu=gpu if deployment.gpu_count and gpu in _GPU_LAYERS else None,
        gpu_count=deployment.gpu_count,
    )
