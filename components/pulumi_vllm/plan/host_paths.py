"""Directories, address and port on the host that vLLM's arguments name; `render/layout.py` re-exports them."""

from __future__ import annotations

from typing import Final

MODELS: Final = "/models"
"""Mount point of the volume."""

WEIGHTS: Final = f"{MODELS}/weights"
CACHES: Final = f"{MODELS}/cache"

ENGINE_ADDRESS: Final = "127.0.0.1"
"""Where vLLM listens: on loopback only, behind the gateway."""

ENGINE_PORT: Final = 8000
"""Port on which vLLM listens."""

REQUESTS_CONFIG: Final = "/etc/pulumi-vllm/requests.json"
"""What vLLM's middleware reads: how clients' requests are adapted, and their limits."""

ENGINE_MODULES: Final = "/usr/local/lib/pulumi-vllm/engine"
"""Directory of the modules that vLLM imports."""

MIDDLEWARE: Final = "client_requests.ClientRequests"
"""The middleware in `ENGINE_MODULES`, as vLLM imports it."""


def weights_directory(repository: str, revision: str) -> str:
    """Directory of one revision of the weights."""
    return f"{WEIGHTS}/{repository}/{revision}"


def cache_directory(engine_version: str) -> str:
    """Directory of one engine version's caches. They are on the volume, so they outlive the machine."""
    return f"{CACHES}/{engine_version}"
