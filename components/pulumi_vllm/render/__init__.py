"""Plan → files on the host, with mode, owner, digest and what a change triggers. Pure; only this package uses Jinja."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pulumi_vllm.render.file_table import models_mount, render
    from pulumi_vllm.render.first_boot import bootstrap, bootstrap_stamp, cloud_init
    from pulumi_vllm.render.host_file import HostFile, Mount

# Loaded on first use: the plugin needs `layout` alone, and Jinja would slow the start of every preview.
_MODULES = {
    "HostFile": "host_file",
    "Mount": "host_file",
    "bootstrap": "first_boot",
    "bootstrap_stamp": "first_boot",
    "cloud_init": "first_boot",
    "models_mount": "file_table",
    "render": "file_table",
}

__all__ = ["HostFile", "Mount", "bootstrap", "bootstrap_stamp", "cloud_init", "models_mount", "render"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
