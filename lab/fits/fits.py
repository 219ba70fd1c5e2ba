"""Here: the tables of stacks and of what fits, from the plan.

usage: fits.py [--write]    (without it they are printed; with it README.md and lab/notes/fits.md get them)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import fit_memory
import yaml
from pulumi_vllm.plan import Deployment, Plan, catalogue, plan, price_comparison, separate_servers
from pulumi_vllm.plan import pricing as price
from pulumi_vllm.plan.errors import PlanError

ROOT = Path(__file__).parents[2]
MARK = "<!-- python lab/fits/fits.py --write: {} -->\n"
END = "<!-- end -->\n"
PROFILES = ("throughput", "latency", "long")
CONTEXTS = ("32Ki", "64Ki", "128Ki", "256Ki")
MODEL = "mistral-small-4"


def stacks() -> str:
    """A row per stack file: what for, where, what it costs, what is known."""
    out = (
        "| stack | for | machine | weights | context, at once | KV tokens | output tok/s "
        "| $ per million of them (512 in, 256 out) |\n"
        "|---|---|---|---|---|---|---|---|\n"
    )
    for path in sorted((ROOT / "stacks").glob("Pulumi.*.yaml")):
        text = path.read_text()
        purpose = text.partition("# For ")[2].partition(":")[0]
        out += f"| `{path.name[7:-5]}` | {purpose} | {_row(planned(text))} |\n"
    return out


def planned(text: str) -> Plan:
    """The plan of a stack file's text."""
    return plan(Deployment.parse(yaml.safe_load(text)["config"]["pulumi-vllm:server"]))


def _row(decided: Plan) -> str:
    deployment, machine = decided.deployment, decided.deployment.machine
    price = f"${decided.usd_per_hour:.2f}/h" if machine.count else "this computer"
    where = f"{machine.count}x {machine.gpu}, {price}" if machine.count else price
    tokens = "1 GiB" if decided.memory is None else f"{decided.kv_tokens:,}"
    if decided.engines > 1:
        where, tokens = f"{decided.engines} engines on {where}", f"{tokens} in {decided.engines} caches"
    rate, dollars = "-", "-"
    if decided.rate is not None and decided.usd_per_million_output_tokens is not None:
        rate = f"{decided.rate.tokens_per_s:,.0f} at {decided.rate.streams}"
        rate += "" if decided.measured == "yes" else " (other flags)"
        rate += " (interpolated)" if len(decided.rate.levels) > 1 else ""
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
        }
        try:
            decided = plan(Deployment.parse(block))
        except PlanError:
            found.append("no")
            continue
        assert decided.memory is not None
        found.append(f"{decided.memory.full_requests:.1f}")
    return "no" if set(found) == {"no"} else ", ".join(found)


def starts() -> str:
    """Every start that was measured, beside what the plan's arithmetic says of it, with and without that start."""
    out = (
        "| start | weights, GiB: measured | predicted | KV tokens: measured | predicted | error | error without it |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    lines = []
    for row, all_of, without in fit_memory.predictions():
        errors = [f"{found.kv_tokens / row.kv_tokens - 1:+.2%}" for found in (all_of, without)]
        weights = f"{row.weights_gib:.2f} | {all_of.weights_gib:.2f}"
        lines.append(
            f"| {row.name} | {weights} | {row.kv_tokens:,} | {all_of.kv_tokens:,} | {' | '.join(errors)} |\n"
        )
    return out + "".join(dict.fromkeys(lines))  # starts with the same figures are one row


def prices() -> str:
    """One machine for everybody against the tutorial's four separate H100 servers, at the dated prices."""
    known = catalogue.load()
    on_demand, spot = price_comparison.separate(None)
    out = (
        "| machine | on demand | per 730 h | against four servers | spot | per 730 h | against four servers |\n"
        "|---|---|---|---|---|---|---|\n"
        f"| four separate H100 (tutorial) | ${on_demand.usd_per_hour:.2f} | ${on_demand.usd_per_month:,.2f} | "
        f"| ${spot.usd_per_hour:.2f} | ${spot.usd_per_month:,.2f} | |\n"
    )
    for gpu, count in (("H100", 1), ("H100", 2), ("H100", 4), ("H200", 1), ("H200", 2)):
        cells = []
        for billing, separate in (("on-demand", on_demand), ("spot", spot)):
            usd = price.list_price(known.gpus[gpu], count, billing)
            saved = None if usd is None else separate.saved(usd)
            assert usd is not None
            assert saved is not None
            month = f"${usd * price.HOURS_PER_MONTH:,.2f}"
            cells += [f"${usd:.2f}", month, f"{-saved:+.0%}" if round(saved, 2) else "the same"]
        out += f"| {count}x {gpu} | {' | '.join(cells)} |\n"
    return out


def servers() -> str:
    """The tutorial's four servers as they would really run, beside servers of Mistral Small 4: 32Ki, 32 at once."""
    known, context, concurrency = catalogue.load(), 32_768, 32
    out = (
        "| server | machine | $ per hour | context | KV tokens | requests of the full context |\n"
        "|---|---|---|---|---|---|\n"
    )
    four = separate_servers.separate_servers(context, concurrency, None, known)
    for one in four:
        assert one.kv_cache_tokens is not None
        moved = "" if one.as_in_tutorial else " (does not fit 1x H100)"
        out += (
            f"| {one.model}, {one.precision} | {one.machine}{moved} | {one.usd_per_hour:.2f} | {one.context:,} | "
            f"{one.kv_cache_tokens:,} | {one.full_requests:.1f} |\n"
        )
    out += f"| together | | {separate_servers.together(four):.2f} | | | |\n"
    for gpu, count, precision in (("H100", 1, "nvfp4"), ("H200", 1, "fp8"), ("H200", 2, "fp8")):
        machine = {"gpu": gpu, "count": count, "max_usd_per_hour": 100}
        block = {"model": MODEL, "precision": precision, "context": context, "concurrency": concurrency}
        decided = plan(Deployment.parse({**block, "machine": machine, "storage": "300GB"}))
        usd = price.list_price(known.gpus[gpu], count, "on-demand")
        assert decided.memory is not None
        out += (
            f"| {MODEL}, {precision} | {count}x {gpu} | {usd:.2f} | {context:,} | {decided.memory.kv_tokens:,} | "
            f"{decided.memory.full_requests:.1f} |\n"
        )
    return out


def performance() -> str:
    """A row per set of flags that was measured: tok/s and TPOT by streams, the cheapest million, KV tokens, starts."""
    known, levels = catalogue.load(), (1, 32, 128, 256, 512, 1024)
    out = (
        "| machine, weights, context, requests at once | engine | "
        + " | ".join(f"{streams:,}" for streams in levels)
        + " | $ per million output tokens (512 in, 256 out), at streams | KV tokens | ready, s |\n"
        + "|---" * (len(levels) + 5)
        + "|\n"
    )
    for run in known.measured:
        if not run.flags or not run.load:
            continue
        cells = {
            row["concurrency"]: f"{row['output_throughput']:,.0f} ({row['median_tpot_ms']:.1f})"
            for row in run.load
        }
        usd = price.list_price(known.gpus[run.gpu], run.count, "on-demand")
        assert usd is not None
        streams, rate = max(run.tokens_per_s.items(), key=lambda level: level[1])
        ready = ", ".join(f"{seconds} ({host})" for host, seconds in run.ready_s.items())
        context, requests = int(run.flags["max-model-len"]), int(run.flags["max-num-seqs"]) * run.engines
        each = f"{run.engines} engines on " if run.engines > 1 else ""
        held = f"{run.kv_tokens:,}" + (f" each of {run.engines}" if run.engines > 1 else "")
        out += (
            f"| {each}{run.count}x {run.gpu}, {run.precision}, {context >> 10}Ki, {requests:,} | {run.engine} | "
            + " | ".join(cells.get(level, "") for level in levels)
            + f" | {usd / 3600 / rate * 1e6:.3f} at {streams:,} | {held} | {ready} |\n"
        )
    return out


TABLES = (
    ("docs/explanation/performance.md", "performance", performance),
    ("README.md", "stacks", stacks),
    ("lab/notes/fits.md", "fits", fits),
    ("lab/notes/fits.md", "starts", starts),
    ("lab/notes/fits.md", "prices", prices),
    ("lab/notes/fits.md", "servers", servers),
)


def main() -> None:
    """Print the tables or put them into the documents."""
    for name, title, table in TABLES:
        if "--write" not in sys.argv:
            print(f"{name}, {title}:\n\n{table()}")
            continue
        document, mark = ROOT / name, MARK.format(title)
        head, found, rest = document.read_text().partition(mark)
        if not found:
            sys.exit(f"{name}: has no line {json.dumps(mark.strip())}")
        document.write_text(head + mark + table() + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
