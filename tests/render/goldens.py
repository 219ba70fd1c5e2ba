"""The golden texts of a stack by name: its files on the host, plan, user data and resources."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import tree
from pulumi_vllm.plan import explain
from pulumi_vllm.render import HostFile, cloud_init, package_files

import stacks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pulumi_vllm.plan import Plan

FOLDER = stacks.ROOT / "tests/rendered"


def texts(
    planned: Plan, files: Sequence[HostFile], block: Mapping[str, Any], args: Mapping[str, Any]
) -> dict[str, str]:
    """Every templated file, the list of all files, the plan, the user data, and the resources that Server registers."""
    same = {*package_files.programs(), *(file.path for file in files if "/requirements-" in file.path)}
    found = {file.path.lstrip("/"): file.text for file in files if file.path not in same}
    found["files.txt"] = "".join(
        f"{file.mode} {file.owner} {file.path}: {file.on_change}\n" for file in files if file.path not in same
    )
    found["plan.json"] = json.dumps(explain.summary(planned), indent=1) + "\n"
    found["cloud-init.json"] = json.dumps(cloud_init(planned), indent=1) + "\n"
    found["resources.yaml"] = tree.text(block, args)
    return found
