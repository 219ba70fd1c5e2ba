"""Here: the tables of stacks and of what fits, from the plan.

usage: fits.py [--write]    (without it they are printed; with it README.md and docs/fits.md get them)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml
from pulumi_vllm.plan import Deployment, Plan, catalogue, plan
from pulumi_vllm.plan.errors import PlanError

ROOT = Path(__file__).parents[2]
MARK = "<!-- python tests/plan/fits.py --write: {} -->\n"
END = "<!-- end -->\n"
PROFILES = ("throughput", "latency", "long")
CONTEXTS = ("32Ki", "64Ki", "128Ki", "256Ki")
MODEL = "mistral-small-4"


def stacks() -> str:
    """A row per stack file: what for, where, what it costs, what is known."""
    out = (
        "| stack | for | machine | weights | context, at once | KV tokens | output tok/s | $ per million |\n"
        "|---|---|---|---|---|---|---|---|\n"
    )
    for path in sorted((ROOT / "stacks").glob("Pulumi.*.yaml")):
        text = path.read_text()
        purpose = text.partition(":")[0].removeprefix("# For ")
        decided = plan(Deployment.parse(yaml.safe_load(text)["config"]["pulumi-vllm:server"]))
        out += f"| `{path.name[7:-5]}` | {purpose} | {_row(decided)} |\n"
    return out


def _row(decided: Plan) -> str:
    deployment, machine = decided.deployment, decided.deployment.machine
    price = f"${decided.usd_per_hour:.2f}/h" if machine.count else "this computer"
    where = f"{machine.count}x {machine.gpu}, {price}" if machine.count else price
    tokens = "1 GiB" if decided.memory is None else f"{decided.memory.kv_tokens:,}"
    rate, dollars = "-", "-"
    run = catalogue.load().measurement(
        (decided.model.name, decided.precision, decided.engine.version, machine.gpu, machine.count),
        decided.argv,
    )
    if run is not None and decided.usd_per_million_output_tokens is not None:
        streams, speed = max(run.tokens_per_s.items())
        rate = f"{speed:,.0f} at {streams}" + ("" if decided.measured == "yes" else " (similar flags)")
        dollars = f"{decided.usd_per_million_output_tokens:.2f}"
    elif machine.count:
        rate = "never started"
    asked = f"{deployment.context:,}, {deployment.sequences}"
    return f"{where} | {decided.precision} | {asked} | {tokens} | {rate} | {dollars}"


def fits() -> str:
    """A row per machine and precision: full-length requests at once for every context and profile."""
    known = catalogue.load()
    out = (
        "| machine | weights | on demand, spot | "
        + " | ".join(CONTEXTS)
        + " |\n|---|---|---|---|---|---|---|\n"
    )
    for gpu in ("H100", "H200"):
        for count in (1, 2, 4, 8):
            prices = known.gpus[gpu].usd_per_hour
            usd = ", ".join(f"${prices[billing] * count:.2f}" for billing in ("on-demand", "spot"))
            for precision in known.models[MODEL].precisions:
                cells = [_cell(gpu, count, precision, context) for context in CONTEXTS]
                out += f"| {count}x {gpu} | {precision} | {usd} | {' | '.join(cells)} |\n"
    return out


def _cell(gpu: str, count: int, precision: str, context: str) -> str:
    found = []
    for profile in PROFILES:
        machine: dict[str, Any] = {"gpu": gpu, "count": count, "max_usd_per_hour": 1000}
        block = {
            "model": MODEL,
            "precision": precision,
            "context": context,
            "profile": profile,
            "machine": machine,
            "storage": "300GB",
            "access": {"allow": ["192.0.2.0/24"]},
        }
        try:
            decided = plan(Deployment.parse(block))
        except PlanError:
            found.append("no")
            continue
        assert decided.memory is not None
        found.append(f"{decided.memory.full_requests:.1f}")
    return "no" if set(found) == {"no"} else ", ".join(found)


TABLES = {"README.md": ("stacks", stacks), "docs/fits.md": ("fits", fits)}


def main() -> None:
    """Print the tables or put them into the documents."""
    for name, (title, table) in TABLES.items():
        if "--write" not in sys.argv:
            print(table())
            continue
        document, mark = ROOT / name, MARK.format(title)
        head, found, rest = document.read_text().partition(mark)
        if not found:
            sys.exit(f"{name}: has no line {json.dumps(mark.strip())}")
        document.write_text(head + mark + table() + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
