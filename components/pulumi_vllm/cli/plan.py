"""`pulumi-vllm plan`: what a stack file would run, whether it fits, and why; no network."""

import argparse
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pulumi_vllm.plan.memory import Budget

_WIDTH = 60


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `plan`."""
    plan = commands.add_parser(
        "plan", help="what a stack file would run, whether it fits, and why; no network"
    )
    plan.add_argument("stack", help="a stack of stacks/, or a file: stacks/Pulumi.local.yaml")
    plan.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="as if the file said so: machine.count=1; may be repeated",
    )
    plan.add_argument("--json", action="store_true", help="the whole plan as JSON")
    plan.set_defaults(run=_plan)


def _plan(parsed: argparse.Namespace) -> int:
    from pulumi_vllm.plan import plan  # noqa: PLC0415
    from pulumi_vllm.plan.config import Deployment  # noqa: PLC0415

    from . import stack_file  # noqa: PLC0415

    block = stack_file.block_of(stack_file.find(parsed.stack))
    for dotted in parsed.set:
        stack_file.put(block, dotted)
    decided = plan(Deployment.parse(block))
    if parsed.json:
        print(json.dumps(decided.summary(), indent=2))
        return 0
    if decided.memory is not None:
        print(drawing(decided.memory))
    for title, value in decided.summary().items():
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
    if decided.memory is not None:
        from pulumi_vllm.plan.recommend import cheaper  # noqa: PLC0415

        found = cheaper(decided)
        if found:
            print(f"cheaper:\n  {found}")
    return 0


def drawing(found: "Budget") -> str:
    """One GPU's memory as a bar, a character for about a sixtieth of it, and what its letters mean."""
    above = found.visible_gib - found.limit_gib
    parts = (
        ("W", "weights", found.weights_gib),
        ("a", "activation and other", found.activation_gib + found.other_gib),
        ("g", "CUDA graphs", found.graphs_gib),
        ("K", "KV cache", found.cache_gib),
        (".", "left alone", above),
    )
    bar, done = "", 0.0
    for letter, _, gib in parts:
        done += gib
        bar += letter * (round(done / found.visible_gib * _WIDTH) - len(bar))
    legend = ", ".join(f"{letter} {name} {gib:.1f}" for letter, name, gib in parts)
    return f"[{bar}]\nof each GPU's {found.visible_gib:.1f} GiB: {legend}"
