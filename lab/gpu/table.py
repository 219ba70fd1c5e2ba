"""Here: the table of lab/notes/performance.md from the evidence files.

usage: table.py [--write]    (without it the table is printed)

The bound is the time in which a card could read what one decode step must: every weight that is used, and the KV
cache of all streams at 640 tokens each (512 in, half of 256 out), at the memory bandwidth of NVIDIA's datasheets.
KV tokens are those of a start of the same flags with the vision tower, where there is one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import compact
from pulumi_vllm.plan import catalogue, weight_memory

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "lab/notes/performance.md"
BEGIN, END = "<!-- python lab/gpu/table.py --write -->\n", "<!-- end of the table -->\n"
TB_S = {"H100": 3.35, "H200": 4.8}
"""Terabytes per second of the SXM cards, NVIDIA's datasheets."""
MEAN_TOKENS = 640
HEAD = (
    "| stack, context, engine | ready, s | KV tokens | streams | output tok/s | TTFT, ms | TPOT, ms | of the bound | $ per million output tokens (512 in, 256 out) |\n"
    "|---|---|---|---|---|---|---|---|---|\n"
)


def step_bytes(model: catalogue.Model, precision: catalogue.Precision, streams: int, cards: int) -> float:
    """What one decode step reads at least on each card: its part of the weights, and the whole latent cache."""
    sizes, mlp = model.dimensions, model.dimensions.mlp
    expert = 3 * sizes.hidden * mlp["intermediate"] * precision.expert_bytes
    idle = mlp["experts"] * (1 - mlp["active"] / mlp["experts"]) ** streams
    weights = weight_memory.weight_bytes(sizes, precision, cards, vision=False)
    unread = (
        sizes.layers * expert * idle + sizes.vocabulary * sizes.hidden * 2
    )  # input embeddings: single rows
    return weights - unread / cards + streams * MEAN_TOKENS * weight_memory.kv_bytes_per_token(sizes, cards)


def rows(run: dict[str, Any], name: str) -> str:
    """The lines of one evidence file."""
    known = catalogue.load()
    model = known.models[run["model"]]
    usd = known.gpus[run["gpu"]].usd_per_hour["on-demand"] * run["count"]
    out = ""
    first = f"{name} | {run['ready_s']:.0f} ({run['host']}) | {int(compact.with_tower(run)['reported']['kv_tokens']):,}"
    for load in run["throughput"]:
        if (
            not load.get("completed")
            or "withdrawn" in load
            or (load["input_tokens"], load["output_tokens"]) != (512, 256)
        ):
            continue
        streams, rate = load["concurrency"], load["output_throughput"]
        read = step_bytes(model, model.precisions[run["precision"]], streams, run["count"])
        bound_ms = read / TB_S[run["gpu"]] / 1e9
        out += (
            f"| {first} | {streams} | {rate:,.0f} | {load['median_ttft_ms']:,.0f} | {load['median_tpot_ms']:.1f} "
            f"| {bound_ms / load['median_tpot_ms']:.2f} | {usd / 3600 / rate * 1e6:.2f} |\n"
        )
        first = " | | "
    return out


def table() -> str:
    """All of it, Markdown."""
    files = sorted(compact.EVIDENCE.glob("*/*.json"))
    return HEAD + "".join(
        rows(json.loads(path.read_text()), f"{path.stem}, {path.parent.name}") for path in files
    )


def main() -> None:
    """Print the table or put it into the document."""
    if "--write" not in sys.argv:
        print(table())
        return
    text = DOCUMENT.read_text()
    head, _, rest = text.partition(BEGIN)
    DOCUMENT.write_text(head + BEGIN + table() + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
