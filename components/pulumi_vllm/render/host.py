"""All files of one machine, from its plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .files import HostFile, Mount

if TYPE_CHECKING:
    from pulumi_vllm.plan import Plan


def render(plan: Plan, *, mount: Mount | None = None) -> tuple[HostFile, ...]:
    """Every file on the host in path order; `models.mount` only when the mount is known."""
    raise NotImplementedError


def models_mount(kind: str, source: str) -> HostFile:
    """The unit that mounts /models; `source` is a device, a virtiofs tag or host:/export."""
    raise NotImplementedError
