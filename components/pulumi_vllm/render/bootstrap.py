"""The first script on a new machine, and the user data that carries it."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from pulumi_vllm.render import jinja
from pulumi_vllm.render.host_files import HostFile

if TYPE_CHECKING:
    from pulumi_vllm.plan import Plan

PATH = "/usr/local/lib/pulumi-vllm/bootstrap"
"""Where the script lies; it runs from there, because its stamp is its own digest."""

BOOTSTRAP_STAMP = "/var/lib/pulumi-vllm/bootstrap.stamp"
"""Holds the sha256 of the bootstrap script that last ran to its end."""

_PACKAGES = ("ca-certificates", "curl", "haproxy", "nftables", "python3", "python3-venv")
_COMPILER = ("gcc", "libc6-dev", "python3-dev")


def bootstrap(plan: Plan | None = None) -> HostFile:
    """The script that makes a bare machine ours; run it as root, as often as you like."""
    compiler = plan is not None and plan.engine.needs_compiler
    packages = (*_PACKAGES, *(_COMPILER if compiler else ()))
    return HostFile(PATH, jinja.fill(PATH, packages=packages), "0755")


def bootstrap_stamp(plan: Plan | None = None) -> str:
    """What BOOTSTRAP_STAMP holds when this script has run."""
    return bootstrap(plan).sha256


def cloud_init(plan: Plan | None = None) -> dict[str, Any]:
    """User data for the rental API: one command that lays the script down and runs it. Holds no secret."""
    text = base64.b64encode(bootstrap(plan).text.encode()).decode()
    folder = PATH.rpartition("/")[0]
    line = (
        f"install -d {folder} && echo {text} | base64 -d > {PATH}.new && chmod 0755 {PATH}.new "
        f"&& mv {PATH}.new {PATH} && {PATH}"
    )
    return {"runcmd": [line]}
