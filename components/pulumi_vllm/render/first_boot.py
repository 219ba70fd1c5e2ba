"""The bootstrap script of a new machine, and the cloud-init user data that runs it."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from pulumi_vllm.render import layout, templates
from pulumi_vllm.render.host_file import HostFile

if TYPE_CHECKING:
    from pulumi_vllm.plan import Plan

_PACKAGES = ("ca-certificates", "curl", "haproxy", "nftables", "python3", "python3-venv")
_COMPILER = ("gcc", "libc6-dev", "python3-dev")


def bootstrap(plan: Plan | None = None) -> HostFile:
    """The script that prepares a bare machine for the other files. It runs as root and may run any number of times."""
    compiler = plan is not None and plan.engine.needs_compiler
    packages = (*_PACKAGES, *(_COMPILER if compiler else ()))
    text = templates.fill(layout.BOOTSTRAP, packages=packages, oldest_python=layout.OLDEST_PYTHON)
    return HostFile(layout.BOOTSTRAP, text, "0755")


def bootstrap_stamp(plan: Plan | None = None) -> str:
    """The content of `layout.BOOTSTRAP_STAMP` after this script has run."""
    return bootstrap(plan).sha256


def cloud_init(plan: Plan | None = None) -> dict[str, Any]:
    """User data for the rental API: one command that writes the script and runs it. It holds no secret."""
    encoded = base64.b64encode(bootstrap(plan).text.encode()).decode()
    path = layout.BOOTSTRAP
    command = (
        f"install -d {layout.PROGRAMS} && echo {encoded} | base64 -d > {path}.new && chmod 0755 {path}.new "
        f"&& mv {path}.new {path} && {path}"
    )
    return {"runcmd": [command]}
