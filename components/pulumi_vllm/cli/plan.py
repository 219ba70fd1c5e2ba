"""`pulumi-vllm plan`: what a stack file would run, whether it fits, and why; no network."""

import argparse
import json
from pathlib import Path

from .say import TROUBLE, say


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `plan`."""
    plan = commands.add_parser(
        "plan", help="what a stack file would run, whether it fits, and why; no network"
    )
    plan.add_argument("stack_file", type=Path, help="for example stacks/Pulumi.local.yaml")
    plan.add_argument("--json", action="store_true", help="the whole plan as JSON")
    plan.set_defaults(run=_plan)


def _plan(parsed: argparse.Namespace) -> int:
    import yaml  # noqa: PLC0415

    from pulumi_vllm.plan import plan  # noqa: PLC0415
    from pulumi_vllm.plan.config import Deployment  # noqa: PLC0415

    try:
        document = yaml.safe_load(parsed.stack_file.read_text())
        block = document["config"]["pulumi-vllm:server"]
    except OSError as error:
        say(f"{parsed.stack_file}: {error.strerror}; name a stack file")
        return TROUBLE
    except (yaml.YAMLError, KeyError, TypeError):
        say(f"{parsed.stack_file}: no `config: pulumi-vllm:server:` in it; see stacks/ for examples")
        return TROUBLE
    summary = plan(Deployment.parse(block)).summary()
    if parsed.json:
        print(json.dumps(summary, indent=2))
        return 0
    for title, value in summary.items():
        print(f"{title}:")
        rows = (
            value
            if isinstance(value, list)
            else [f"{k}: {v}" for k, v in value.items()]
            if isinstance(value, dict)
            else [value]
        )
        for row in rows:
            print(f"  {row}")
    return 0
