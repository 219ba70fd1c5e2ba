"""Here: what a stack starts, as one JSON file per run for the GPU machine.

usage: launch.py OUT.json stacks/Pulumi.NAME.yaml [gpu=H100 precision=nvfp4 ...]   (keys of `server` or of its machine)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml
from pulumi_vllm.plan import host_paths, plan
from pulumi_vllm.plan.config import Deployment
from pulumi_vllm.render import render


def launch(stack: str, server: dict[str, Any]) -> dict[str, Any]:
    """Argv, environment, the rendered files that the engine reads, and what the evidence names."""
    planned = plan(Deployment.parse(server))
    read = (host_paths.REQUESTS_CONFIG, f"{host_paths.ENGINE_MODULES}/")
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
        "files": {file.path: file.text for file in render(planned) if file.path.startswith(read)},
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
