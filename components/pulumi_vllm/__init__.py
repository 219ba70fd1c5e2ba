"""Serve an open-weight LLM on rented GPUs, declared in Pulumi."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pulumi_vllm.component.generated import (
        ApiKey,
        Authority,
        Certificate,
        Files,
        Instance,
        Provider,
        Service,
        SshKey,
        Volume,
        VolumeAttachment,
        Weights,
    )
    from pulumi_vllm.component.mocks import Mocks
    from pulumi_vllm.component.server import Server
    from pulumi_vllm.component.server_args import HostCommand, ServerArgs

# Loaded on first use: `import pulumi` takes 0.7 s, which the provider and `pulumi-vllm plan` must not pay.
_HOMES = {
    "Server": "server",
    "Mocks": "mocks",
    **dict.fromkeys(("HostCommand", "ServerArgs"), "server_args"),
    **dict.fromkeys(
        (
            "ApiKey",
            "Authority",
            "Certificate",
            "Files",
            "Instance",
            "Provider",
            "Service",
            "SshKey",
            "Volume",
            "VolumeAttachment",
            "Weights",
        ),
        "generated",
    ),
}

__all__ = [
    "ApiKey",
    "Authority",
    "Certificate",
    "Files",
    "HostCommand",
    "Instance",
    "Mocks",
    "Provider",
    "Server",
    "ServerArgs",
    "Service",
    "SshKey",
    "Volume",
    "VolumeAttachment",
    "Weights",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"pulumi_vllm.component.{_HOMES[name]}"), name)
