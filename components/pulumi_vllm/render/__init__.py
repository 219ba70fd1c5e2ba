"""Plan → files on the host, with mode, owner, digest and what a change means. Pure; Jinja lives here only."""

from __future__ import annotations

from pulumi_vllm.render.bootstrap import BOOTSTRAP_STAMP, bootstrap, bootstrap_stamp, cloud_init
from pulumi_vllm.render.host import models_mount, render
from pulumi_vllm.render.host_files import HostFile, Mount

__all__ = [
    "BOOTSTRAP_STAMP",
    "HostFile",
    "Mount",
    "bootstrap",
    "bootstrap_stamp",
    "cloud_init",
    "models_mount",
    "render",
]
