"""Plan → files on the host, with mode, owner, digest and what a change means. Pure; Jinja lives here only."""

from __future__ import annotations

from .bootstrap import BOOTSTRAP_STAMP, bootstrap, bootstrap_stamp, cloud_init
from .files import HostFile, Mount
from .host import models_mount, render

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
