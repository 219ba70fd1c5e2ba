"""Here: what a stack starts, as one JSON file per run for the GPU machine.

usage: launch.py OUT.json stacks/Pulumi.NAME.yaml [gpu=H100 precision=nvfp4 ...]   (keys of `server` or of its machine)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml
from pulumi_vllm.plan import plan
from pulumi_vllm.plan.config import Deployment


def launch(stack: str, server: dict[str, Any]) -> dict[str, Any]:
    """Argv, environment and what the evidence names."""
    planned = plan(Deployment.parse(server))
    return {
        "stack": stack,
        "engine": planned.engine.version,
        "model": planned.model.name,
        "precision": planned.precision,
        "gpu": planned.deployment.machine.gpu,
        "count": planned.deployment.machine.count,
        "weights_directory": planned.weights_directory,
        "cache_directory": planned.cache_directory,
        "argv": list(planned.argv),
        "environment": dict(planned.environment),
    }


def block(path: Path, changes: list[str]) -> dict[str, Any]:
    """The stack file's `server`, with `key=value` changes to it or to its machine."""
    server: dict[str, Any] = yaml.safe_load(path.read_text())["config"]["pulumi-vllm:server"]
    for change in changes:
        key, _, value = change.partition("=")
        place = server["machine"] if key in server["machine"] else server
        place[key] = yaml.safe_load(value)
    return server


def main() -> None:
    """Write one file."""
    out, path, *changes = sys.argv[1:]
    server = block(Path(path), changes)
    machine = server["machine"]
    stack = (
        f"{machine['cloud']}-{machine['gpu'].lower()}-{machine['count']}x-{server.get('precision', 'fp8')}"
    )
    Path(out).write_text(json.dumps(launch(stack, server), indent=1) + "\n")


if __name__ == "__main__":
    main()
