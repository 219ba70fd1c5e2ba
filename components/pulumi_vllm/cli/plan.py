"""`pulumi-vllm plan`: what a stack file would run, whether it fits, and why; two are compared; no network."""

import argparse
import gc
import json
import os
from typing import TYPE_CHECKING, Any

from pulumi_vllm.cli.terminal import TROUBLE, USAGE, coloured, say

if TYPE_CHECKING:
    from pulumi_vllm.plan import Plan
    from pulumi_vllm.plan.memory import Budget

_WIDTH = 60
_COLOURS = {"W": "34", "a": "35", "g": "33", "K": "32", ".": "90"}
# What two stacks are compared by, as the summary has it, and how a figure is written.
_COMPARED = {
    "machine": "",
    "billing": "",
    "model": "",
    "precision": "",
    "engine": "",
    "weights_gib_per_gpu": ",.2f",
    "kv_cache_gib_per_gpu": ",.2f",
    "kv_cache_tokens": ",",
    "full_length_requests": ",.2f",
    "disk_gib": ",",
    "usd_per_hour": ",.2f",
    "usd_per_month": ",.2f",
    "storage_usd_per_month": ",.2f",
    "usd_per_million_output_tokens": ",.2f",
}


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `plan`."""
    text = "what a stack file would run, whether it fits, and why; two stacks are compared; no network"
    plan = commands.add_parser("plan", help=text, description=f"{text.capitalize()}.")
    plan.add_argument(
        "stack", nargs="+", help="a stack of stacks/, or a file: stacks/Pulumi.local.yaml; one or two"
    )
    plan.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="as if the file said so, in both if two: machine.count=1; may be repeated",
    )
    plan.add_argument("--json", action="store_true", help="the whole plan as JSON; of two, a list")
    plan.set_defaults(run=_plan)


def _plan(parsed: argparse.Namespace) -> int:
    # A plan is over in a moment; garbage in what it imports and plugins of pydantic would take a tenth of that.
    gc.disable()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    if len(parsed.stack) == 1 and not parsed.json:
        _show(_decide(parsed.stack[0], parsed.set))
        return 0
    if len(parsed.stack) == 1:
        found = _summary(parsed.stack[0], parsed.set)
        print(json.dumps(found, indent=2))
        return TROUBLE if "refused" in found else 0
    if len(parsed.stack) > 2:  # noqa: PLR2004 - two fit on a line
        say("plan: names more than two stacks; compare two at a time")
        return USAGE
    return _compare(parsed.stack, parsed.set, as_json=parsed.json)


def _decide(stack: str, changes: list[str]) -> "Plan":
    from pulumi_vllm.cli import stack_file
    from pulumi_vllm.plan import plan
    from pulumi_vllm.plan.config import Deployment

    block = stack_file.block_of(stack_file.find(stack))
    for dotted in changes:
        stack_file.put(block, dotted)
    return plan(Deployment.parse(block))


def _summary(stack: str, changes: list[str]) -> dict[str, Any]:
    """The plan as JSON, or why there is none; `fits` is None where that could not be asked."""
    from pulumi_vllm.plan.errors import ConfigError, DoesNotFit, PlanError

    try:
        return _decide(stack, changes).summary()
    except PlanError as error:
        fits = None if isinstance(error, ConfigError) else not isinstance(error, DoesNotFit)
        return {"fits": fits, "refused": list(error.errors)}


def _show(decided: "Plan") -> None:
    from pulumi_vllm.plan.alternatives import cheaper

    found = decided.summary()
    labels = found["labels"]
    head = f"{found['machine']} {found['billing']}, {found['model']} {found['precision']}"
    print(f"{head}, vLLM {found['engine']}")
    if decided.memory is not None:
        print(drawing(decided.memory))
    for name in ("fits", *(name for name in _COMPARED if name in labels)):
        value = found[name]
        written = "yes" if value is True else "-" if value is None else format(value, _COMPARED.get(name, ""))
        told = labels[name] if name == "fits" or "usd" in name else labels[name].partition(":")[0]
        print(f"{name}: {written} ({told})")
    print(f"disk_gib: {found['disk_gib']}")
    for title in ("budget", "because"):
        print(f"{title}:")
        for line in found[title]:
            print(f"  {_severity(line)}")
    print(f"flags ({labels['flags']}):")
    for line in _words(found["flags"]):
        print(f"  {line}")
    print("environment:")
    for name, value in found["environment"].items():
        print(f"  {name}={value}")
    sentence = cheaper(decided) if decided.memory is not None else None
    if sentence:
        print(f"cheaper:\n  {sentence}")


def _severity(line: str) -> str:
    word = line.partition(" ")[0]
    return {"Error": coloured(line, "31"), "Warning": coloured(line, "33")}.get(word, line)


def _words(flags: list[str]) -> list[str]:
    """A line per argument, as a shell would read it."""
    import shlex  # JSON needs no shell

    lines: list[str] = []
    for word in flags:
        if word.startswith("--"):
            lines.append(word)
        else:
            lines[-1] += f" {shlex.quote(word)}"
    return lines


def _compare(stacks: list[str], changes: list[str], *, as_json: bool) -> int:
    """Two columns, what differs marked; a stack that is refused says why in its column's place."""
    found = [{"stack": stack, **_summary(stack, changes)} for stack in stacks]
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        _columns(found)
    return TROUBLE if any("refused" in one for one in found) else 0


def _columns(found: list[dict[str, Any]]) -> None:
    wide = max(*(len(one["stack"]) for one in found), len("1x H200 on-demand"))
    title = max(map(len, _COMPARED))
    print(f"  {'':{title}}  {found[0]['stack']:{wide}}  {found[1]['stack']}")
    for name, layout in _COMPARED.items():
        values = [one.get(name) for one in found]
        cells = ["-" if value is None else format(value, layout) for value in values]
        line = f"{name:{title}}  {cells[0]:{wide}}  {cells[1]}"
        print(f"* {coloured(line, '1')}" if values[0] != values[1] else f"  {line}")
    flags = [_words(one.get("flags", [])) for one in found]
    for one, mine, others in zip(found, flags, reversed(flags), strict=True):
        for line in mine if "refused" not in one and others else ():
            if line not in others and not line.startswith("--model "):
                print(f"only {one['stack']}: {line}")
    for one in found:
        for sentence in one.get("refused", ()):
            print(coloured(f"{one['stack']} is refused: {sentence}", "31"))


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
    bar, length, done = "", 0, 0.0
    for letter, _, gib in parts:
        done += gib
        more = round(done / found.visible_gib * _WIDTH) - length
        bar, length = bar + coloured(letter * more, _COLOURS[letter]), length + more
    legend = ", ".join(
        f"{coloured(letter, _COLOURS[letter])} {name} {gib:.1f}" for letter, name, gib in parts
    )
    return f"[{bar}]\nof each GPU's {found.visible_gib:.1f} GiB: {legend}"
