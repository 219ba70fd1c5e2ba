"""Here: lab/evidence → components/pulumi_vllm/plan/data/evidence.json, the part of the evidence that the product reads.

usage: compact.py [--write]    (without it the file is printed)

One line of the file is one set of flags on one kind of machine, of an engine that a stack file can select. lab/tests compare the file with lab/evidence.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pulumi_vllm.plan import catalogue, cuda_graphs
from pulumi_vllm.plan.catalogue import WARM_REPLACEMENT
from pulumi_vllm.plan.evidence import recorded_flags

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ROOT = Path(__file__).parents[2]
GIVEN = "kv-cache-memory-bytes"
"""What `plan` adds to a launch that was measured without it."""
SHORT_PROMPT, LONG_PROMPT, BURST = 512, 10_000, 32
"""Tokens of the prompts that say how fast prompts are read, and the fewest requests that fill the card's steps."""
EVIDENCE = ROOT / "lab/evidence"
TARGET = ROOT / "components/pulumi_vllm/plan/data/evidence.json"
LEVEL = (
    "concurrency",
    "input_tokens",
    "output_tokens",
    "output_throughput",
    "median_ttft_ms",
    "median_tpot_ms",
)
"""Figures of one level of load, under the names of `vllm bench serve`; `pulumi-vllm bench` compares the last three."""


def earlier() -> Iterator[dict[str, Any]]:
    """Rows from before the kit existed, which kept neither flags nor latencies."""
    content = yaml.safe_load((EVIDENCE / "earlier.yaml").read_text())
    for row in content["rows"]:
        yield content["common"] | row


def compact(run: dict[str, Any]) -> dict[str, Any]:
    """One evidence file in the fields of `catalogue.Measured`.

    The load is that of 512 tokens in and 256 out, at no more streams than the engine has places: with more of them some
    wait all the time, for a rate that no stack of so many places has. The KV tokens are those of a start with the vision tower where
    there was one, because the product ships the tower. `permitted_differences` become the conditions.
    """
    shipped = (run, *_as_shipped(run))
    answered = (
        row for row in run["throughput"] if row.get("completed")
    )  # other levels were skipped, or failed
    load = [row for row in answered if (row["input_tokens"], row["output_tokens"]) == (512, 256)]
    load = [row for row in load if "withdrawn" not in row and row["concurrency"] <= places(run)]
    differences = (
        f"{one['what']} {one['started']}, shipped {one['shipped']}" for one in run["permitted_differences"]
    )
    return {
        **{name: run[name] for name in ("model", "precision", "engine", "gpu", "count")},
        "date": run["date"][:10],
        "kv_tokens": int(with_tower(run)["reported"]["kv_tokens"]),
        "ready_s": {run["host"]: round(run["ready_s"]), **_warm_start(shipped[1:])},
        "tokens_per_s": {row["concurrency"]: row["output_throughput"] for row in load},
        "conditions": "; ".join(differences),
        "flags": recorded_flags(run["flags"]),
        "load": [{name: row[name] for name in LEVEL} for row in load],
        "prompt_rates": prompt_rates(run),
        "token_ms": token_ms(run),
        "died_of": next((one["died_of"].partition(".")[0] for one in shipped if one.get("died_of")), ""),
    }


def side_by_side() -> Iterator[dict[str, Any]]:
    """Rows of several engines on one machine, each with a part of its cards, that were loaded at the same time."""
    for group in json.loads((EVIDENCE / "side_by_side.json").read_text()):
        evidence = json.loads((EVIDENCE / group["evidence"]).read_text())
        found = {one["run"]: one for one in evidence["other_runs"]}
        yield together(evidence, [found[name] for name in group["runs"]])


def together(evidence: dict[str, Any], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """One row of engines that ran at the same time. Streams and rates are sums, the latencies are the slower engine's.

    Flags and KV tokens are those of the first engine, which found its KV tokens by itself.
    """
    engines = len(runs)
    levels = zip(*(compact({**evidence, **one, "other_runs": []})["load"] for one in runs), strict=True)
    # One stream on each engine is no level of one engine over all cards, so there is nothing to compare it with.
    load = [
        {
            **rows[0],
            "concurrency": sum(row["concurrency"] for row in rows),
            "output_throughput": round(sum(row["output_throughput"] for row in rows), 3),
            **{name: max(row[name] for row in rows) for name in ("median_ttft_ms", "median_tpot_ms")},
        }
        for rows in levels
        if rows[0]["concurrency"] > 1
    ]
    first = compact({**evidence, **runs[0], "other_runs": []})
    return {
        **first,
        "count": evidence["count"] * engines,
        "engines": engines,
        "ready_s": {"host that started all engines at once": round(max(one["ready_s"] for one in runs))},
        "tokens_per_s": {row["concurrency"]: row["output_throughput"] for row in load},
        "load": load,
        "prompt_rates": {length: rate * engines for length, rate in first["prompt_rates"].items()},
    }


def prompt_rates(run: dict[str, Any]) -> dict[int, int]:
    """Input tokens per second by the length of the prompt.

    At the start of a level, all its requests come at once, and the last of them has its first token when all prompts
    are read. That is the level's p99 of the time to the first token, if none has to wait for a place: the highest such
    level counts. A long prompt is sent alone.
    """
    rows = [row for row in run["throughput"] if row.get("completed") and "withdrawn" not in row]
    found = {
        row["input_tokens"]: round(row["input_tokens"] / row["median_ttft_ms"] * 1000)
        for row in rows
        if row["concurrency"] == 1 and row["input_tokens"] >= LONG_PROMPT
    }
    bursts = [
        row
        for row in rows
        if BURST <= row["concurrency"] <= places(run) and row["input_tokens"] == SHORT_PROMPT
    ]
    for row in sorted(bursts, key=lambda row: int(row["concurrency"]))[-1:]:
        found[SHORT_PROMPT] = round(row["concurrency"] * SHORT_PROMPT / row["p99_ttft_ms"] * 1000)
    return dict(sorted(found.items()))


def token_ms(run: dict[str, Any]) -> dict[int, float]:
    """Median milliseconds per output token of a request that is served alone, by the length of the prompt."""
    rows = (row for row in run["throughput"] if row.get("completed") and "withdrawn" not in row)
    found = {
        row["input_tokens"]: row["median_tpot_ms"]
        for row in rows
        if row["concurrency"] == 1 and row["input_tokens"] >= SHORT_PROMPT and row["output_tokens"] > 1
    }
    return dict(sorted(found.items()))


def places(run: dict[str, Any]) -> int:
    """Requests that the engine serves at the same time."""
    return int(str(recorded_flags(run["flags"])["max-num-seqs"]))


def with_tower(evidence: dict[str, Any]) -> dict[str, Any]:
    """The run of the evidence file's own flags that had the vision tower, or its first run if none had."""
    return next((one for one in (evidence, *_as_shipped(evidence)) if one.get("vision_tower")), evidence)


def _warm_start(shipped: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Readiness of the last start on another host that had the volume's caches, if there was one."""
    starts = [one for one in shipped if one["other_home_and_host_name"] and one["ready_s"]]
    return {WARM_REPLACEMENT: round(starts[-1]["ready_s"])} if starts else {}


def _as_shipped(evidence: dict[str, Any]) -> list[dict[str, Any]]:
    """The other runs that had the evidence file's own flags, environment and packages.

    A run that was also given the size of its KV cache counts: a measured launch is shipped with it. Its card and its
    port say nothing.
    """
    return [
        one
        for one in evidence["other_runs"]
        if same_flags(one.get("flags", evidence["flags"]), evidence["flags"])
        and not one.get("changed_flags", {}).keys() - {GIVEN, "port"}
        and not one.get("changed_environment", {}).keys() - {"CUDA_VISIBLE_DEVICES"}
        and one.get("packages", evidence["packages"]) == evidence["packages"]
    ]


def same_flags(one: list[str], other: list[str]) -> bool:
    """Whether two command lines have the same flags, apart from the KV cache's size and the list of fewer graphs."""
    first, second = (
        {**cuda_graphs.without_few_sizes(recorded_flags(words)), GIVEN: ""} for words in (one, other)
    )
    return first == second


def text() -> str:
    """The whole file."""
    selectable = catalogue.load().engines
    files = [path for path in sorted(EVIDENCE.glob("*/*.json")) if path.parent.name in selectable]
    runs = [*earlier(), *(compact(json.loads(path.read_text())) for path in files), *side_by_side()]
    lines = ",\n".join(f"  {json.dumps(run)}" for run in runs)
    return f'{{\n "generated_by": "lab/gpu/compact.py --write",\n "runs": [\n{lines}\n ]\n}}\n'


def main() -> None:
    """Print the file or write it."""
    if "--write" in sys.argv:
        TARGET.write_text(text())
    else:
        sys.stdout.write(text())


if __name__ == "__main__":
    main()
