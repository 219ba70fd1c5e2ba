"""The local cloud: a rental API, machines that are containers on this computer, and a model hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pulumi_vllm_local.control import Running, down, status, up
    from pulumi_vllm_local.settings import LocalCloudError

__all__ = ["LocalCloudError", "Running", "down", "status", "up"]


def __getattr__(name: str) -> Any:
    """Import on first use, because the command line must start quickly."""
    if name in __all__:
        from pulumi_vllm_local import control

        return getattr(control, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
