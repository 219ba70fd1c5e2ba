"""The first script on a new machine, and the user data that carries it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .files import HostFile

if TYPE_CHECKING:
    from pulumi_vllm.plan import Plan

BOOTSTRAP_STAMP = "/var/lib/pulumi-vllm/bootstrap.stamp"
"""Holds the sha256 of the bootstrap script that last ran to its end."""


def bootstrap(plan: Plan | None = None) -> HostFile:
    """The script that makes a bare machine ours; run it as root, as often as you like."""
    raise NotImplementedError


def bootstrap_stamp(plan: Plan | None = None) -> str:
    """What BOOTSTRAP_STAMP holds when this script has run."""
    return bootstrap(plan).sha256


def cloud_init(plan: Plan | None = None, ssh_public_key: str | None = None) -> dict[str, Any]:
    """User data for the rental API: {packages, runcmd, writeFiles}, without secrets."""
    raise NotImplementedError
