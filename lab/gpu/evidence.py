"""Here: results of the GPU machine → one evidence file per stack and context, and the captured files beside the tests.

usage: evidence.py RESULTS_FOLDER FIRST_RUN MACHINE HOST
       (the file is <stack>-<context>.json, with -<sequences> where there are more than 256; MACHINE names the folder under lab/captured, such as h100-x1; HOST says what had run there: "fresh host";
       what the stack's evidence held before is kept among its other runs, with the flags of then)
       evidence.py --add RESULTS_FOLDER EVIDENCE.json MACHINE     more runs of a stack that has evidence already
"""

from __future__ import annotations

import gzip
import json
import shutil
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import compact
import phases
from pulumi_vllm.plan.engine_arguments import EngineArguments
from pulumi_vllm.plan.evidence import recorded_flags
from server import with_flags

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[2]
DIFFERENCES = [
    {
        "what": "--load-format",
        "shipped": "mistral",
        "started": "random",
        "why": "no weights on the machine: every tensor has its real shape and random values, the text is noise",
    },
]
NO_MULTICAST = {
    "what": "NVLink multicast",
    "shipped": "NCCL's default",
    "started": "off",
    "why": "the machine was shared: a program that uses it can put the other GPUs of the host out of service",
}
PLACE_FLAGS = {"port": "8000"}
PLACE_VARIABLES = ("CUDA_VISIBLE_DEVICES",)
"""What differs between engines that are measured side by side, one on each card. It says nothing about their speed."""
USUAL_SEQUENCES = 256
"""Profile `throughput`. The evidence file of a run with more sequences has their number in its name."""
LEVEL = (
    "concurrency", "prompts", "input_tokens", "output_tokens", "completed", "failed", "output_throughput",
    "total_token_throughput", "median_ttft_ms", "p99_ttft_ms", "median_tpot_ms", "p99_tpot_ms", "median_itl_ms",
    "header", "route", "skipped", "error", "withdrawn",
)  # fmt: skip


def levels(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The throughput table. What controls.py changed is no evidence of the flags."""
    own = [row for row in result["throughput"] if "controls" not in row]
    return [{key: row[key] for key in LEVEL if key in row} for row in own]


def utilisation(result: dict[str, Any], dmon: Path) -> list[dict[str, float]]:
    """Medians of `nvidia-smi dmon` within each level, its first and last two seconds left out."""
    rows = [line.split() for line in dmon.read_text().splitlines() if line and not line.startswith("#")]
    out = []
    for level in result["throughput"]:
        if "ended" not in level or level["duration"] < 5:
            continue  # skipped, failed, or too short
        end = datetime.strptime(level["ended"], "%H:%M:%S")  # noqa: DTZ007  # both clocks are the machine's
        first, last = end - timedelta(seconds=level["duration"] - 2), end - timedelta(seconds=2)
        inside = [row for row in rows if first <= datetime.strptime(row[0], "%H:%M:%S") <= last]  # noqa: DTZ007
        if not inside:
            continue  # what was taken away with the machine
        middle = {name: sorted(float(row[at]) for row in inside)[len(inside) // 2]
                  for name, at in (("power_w", 2), ("sm_percent", 5), ("memory_percent", 6))}  # fmt: skip
        out.append({"concurrency": level["concurrency"], "samples": len(inside), **middle})
    return out


def run_of(result: dict[str, Any], machine: str) -> dict[str, Any]:
    """What every run leaves."""
    return {
        "run": result["run"],
        "flags": result["argv"],
        "date": result["date"],
        "vision_tower": EngineArguments.of(recorded_flags(result["started_argv"])).image_limit > 0,
        "changed_flags": result["changed_flags"],
        "changed_environment": result.get("changed_environment", {}),
        "outcome": result["outcome"],
        "ready_s": result["ready_s"],
        "phases_s": result["phases_s"],
        "reported": result["reported"],
        "memory_used_mib": result["memory_used_mib"],
        "memory_used_after_load_mib": result.get("memory_used_after_load_mib"),
        "chose": result["chose"],
        "warm_up_s": result.get("warm_up", {}).get("duration"),
        "throughput": levels(result),
        "caches": result["caches"],
        "files_written_by_start": result["written"],
        "stop": result["stop"],
        "other_home_and_host_name": bool(result["other_host"]),
        **{name: result[name] for name in ("drain", "images") if result.get(name)},
        **({"died_of": result["died_of"]} if result["died_of"] else {}),
        "source_log": f"lab/captured/{machine}/{result['run']}.log.gz",
    }


def cut_off(result: dict[str, Any], log: Path) -> dict[str, Any]:
    """What measure.py had not come to when the machine went: the log as it was then, packed beside itself, says it."""
    text = log.read_text(errors="replace")
    Path(f"{log}.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    unknown: dict[str, Any] = {"memory_used_mib": [], "caches": {}, "written": {}}
    read = phases.read(text, datetime.fromisoformat(result["began"]))
    return {**unknown, **result, **read, "stop": {"cut_off": "the machine's time was over"}}


def gathered(folder: Path, machine: str) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Runs by name as evidence holds them, and as they were written; their logs go to lab/captured."""
    captured = ROOT / "lab/captured" / machine
    captured.mkdir(parents=True, exist_ok=True)
    runs: dict[str, dict[str, Any]] = {}
    results: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json"), key=lambda one: one.stat().st_mtime):
        if path.name.endswith(".load.json"):
            continue
        result = json.loads(path.read_text())
        if "stop" not in result:
            result |= cut_off(result, folder / f"{path.stem}.log")
        runs[path.stem] = run_of(result, machine)
        results[path.stem] = result
        shutil.copy(folder / f"{path.stem}.log.gz", captured)
        if "profile" in result:
            steps = [step for one in result["profile"] for step in one["traces"].values()]
            (captured / f"{path.stem}.steps.json").write_text(json.dumps(steps, indent=1) + "\n")
    return runs, results


def add(folder: Path, evidence: Path, machine: str) -> None:
    """Append runs to an evidence file; a run whose log it names is replaced."""
    content = json.loads(evidence.read_text())
    runs, _ = gathered(folder, machine)
    if content["source_log"] in [one["source_log"] for one in runs.values()]:
        sys.exit(
            f"{evidence}: {content['run']} is its first run; make it anew: evidence.py {folder} {content['run']} ..."
        )
    content["other_runs"] = kept(content["other_runs"], runs) + beside(content["flags"], runs.values())
    if compact.with_tower(content) is not content:
        for difference in content["permitted_differences"]:
            if difference["what"] == "vision tower":
                difference["started"] = "absent for the rates, present for the KV tokens"
    evidence.write_text(json.dumps(content, indent=1) + "\n")


def beside(flags: list[str], runs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs as evidence of `flags` holds them among its others: with their own only where they were others."""
    return [{name: one[name] for name in one if name != "flags" or one[name] != flags} for one in runs]


def kept(known: Iterable[dict[str, Any]], runs: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """What is known but for the runs that are given anew: a run is known by its log, names return."""
    logs = [one["source_log"] for one in runs.values()]
    return [one for one in known if one.get("source_log") not in logs]


def earlier(out: Path, runs: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs of the evidence that is there already, but those given anew, each with the conditions of then."""
    if not out.exists():
        return []
    first: dict[str, Any] = json.loads(out.read_text())
    conditions = {name: first[name] for name in ("flags", "packages", "environment", "permitted_differences")}
    before = kept([first, *first.pop("other_runs")], runs)
    return [one | {name: conditions[name] for name in conditions if name not in one} for one in before]


def main() -> None:
    """Write the evidence of one stack; the first run is the shipped flags on a fresh machine."""
    if sys.argv[1] == "--add":
        add(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
        return
    folder, first, machine, host = Path(sys.argv[1]), *sys.argv[2:5]
    captured = ROOT / "lab/captured" / machine
    runs, results = gathered(folder, machine)
    under_load = folder / f"{first}.captured"
    if under_load.exists():
        shutil.rmtree(captured / "under-load", ignore_errors=True)
        shutil.copytree(under_load, captured / "under-load")
    shipped = results[first]
    if shipped["outcome"] != "ready":
        sys.exit(
            f"{folder}/{first}.json: {shipped['outcome']}, never ready: add it to other evidence with --add"
        )
    # Started with changes, it is evidence of the flags and the environment that it ended up with.
    shipped["argv"] = with_flags(shipped["argv"], {**shipped["changed_flags"], **PLACE_FLAGS})
    changed = shipped.get("changed_environment", {})
    shipped["environment"] |= {name: value for name, value in changed.items() if name not in PLACE_VARIABLES}
    runs[first] |= {"flags": shipped["argv"], "changed_flags": {}, "changed_environment": {}}
    context = int(shipped["argv"][shipped["argv"].index("--max-model-len") + 1])
    folder_of_engine = ROOT / "lab/evidence" / shipped["engine"]
    folder_of_engine.mkdir(parents=True, exist_ok=True)
    sequences = int(shipped["argv"][shipped["argv"].index("--max-num-seqs") + 1])
    many = f"-{sequences}" if sequences > USUAL_SEQUENCES else ""
    out = folder_of_engine / f"{shipped['stack']}-{context >> 10}ki{many}.json"
    before = earlier(out, runs)
    name, memory, driver, power, *_ = shipped["machine"]["gpus"][0].split(", ")
    evidence = {key: shipped[key] for key in ("stack", "engine", "model", "precision", "gpu", "count")} | {
        "card": name,
        "card_memory_mib": int(memory),
        "driver": driver,
        "power_limit_w": float(power),
        "packages": shipped["machine"]["packages"],
        "flags": shipped["argv"],
        "environment": shipped["environment"],
        "permitted_differences": [*DIFFERENCES, *([NO_MULTICAST] if shipped["count"] > 1 else [])],
        "repetitions": 1,
        "host": host,
        "drain": None,
        **runs.pop(first),
        "utilisation": utilisation(shipped, dmon) if (dmon := under_load / "dmon.txt").exists() else [],
        "chat_status": [
            {"request": one["request"], "status": one["status"]} for one in shipped.get("chat", [])
        ],
        "other_runs": beside(shipped["argv"], [*runs.values(), *before]),
    }
    out.write_text(json.dumps(evidence, indent=1) + "\n")


if __name__ == "__main__":
    main()
