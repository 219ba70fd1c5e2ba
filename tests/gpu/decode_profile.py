"""What a decode step is made of: PyTorch's profiler over some steps of streams that only decode, summed by kernel.

usage: decode_profile.py STEPS.decode-step.json      (what evidence.py keeps of measure.py --profile; prints a table of parts)
"""

from __future__ import annotations

import gzip
import json
import re
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import drain

STEPS = 24
ON_THE_GPU = {"kernel", "gpu_memcpy", "gpu_memset"}
ONLY_DECODING = re.compile(r"context_0\(\S*generation_(\d+)")
"""How vLLM names a step in which no prompt is processed."""

FEW, REST = 8, "head, sampling, copies"
"""What runs fewer times in a step belongs to no layer: it is the rest."""
PARTS = {
    REST: r"distribution_elementwise",
    "the experts' two products": r"^fused_moe_kernel",
    "projections, shared expert": r"cutlass_3x_gemm",
    "attention": r"flash",
    "choice of experts": r"gatherTopK|topkGating|triton\S*softmax|triton_red_fused__to_copy_div_sum|^triton_poi_fused__to_copy_3$",
    "sorting tokens by expert, activation, sum": r"moe_align|count_and_sort|moe_sum|act_and_mul|scaled_fp8_quant",
    "router": r"splitK",
    "latent vectors up and down": r"^nvjet",
    "norms, rotations, quantising, cache": r"",
}
"""Part of a step → its kernels, the first that fits."""


def flag(folder: Path) -> str:
    """Value of --profiler-config."""
    return json.dumps({
        "profiler": "torch", "torch_profiler_dir": str(folder), "torch_profiler_with_stack": False,
        "torch_profiler_dump_cuda_time_total": False, "ignore_frontend": True, "max_iterations": STEPS,
    })  # fmt: skip


def busy_us(spans: list[tuple[float, float]]) -> float:
    """Microseconds in which at least one of the spans (begin, end) runs: streams of one GPU overlap."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def read(path: Path) -> dict[str, Any]:
    """Mean step: milliseconds, of it busy, and the kernels with their calls and microseconds a step."""
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    # Each CUDA stream that a step uses has its own mark; the one that is marked first leads.
    marks = sorted(
        (event["ts"], event["tid"], int(named[1]))
        for event in events
        if event.get("cat") == "gpu_user_annotation"
        and (named := ONLY_DECODING.search(event.get("name", "")))
    )
    begins = [at for at, stream, _ in marks if stream == marks[0][1]]
    steps = len(begins) - 1
    if steps < 1:
        return {"error": f"no two decode steps in {path.name}"}
    calls: dict[str, int] = defaultdict(int)
    took: dict[str, float] = defaultdict(float)
    spans = []
    for event in events:
        if event.get("cat") in ON_THE_GPU and begins[0] <= event["ts"] < begins[-1]:
            calls[event["name"]] += 1
            took[event["name"]] += event["dur"]
            spans.append((event["ts"], event["ts"] + event["dur"]))
    return {
        "streams": marks[-1][2],
        "steps": steps,
        "step_ms": round((begins[-1] - begins[0]) / steps / 1000, 3),
        "busy_ms": round(busy_us(spans) / steps / 1000, 3),
        "kernels": [
            {
                "name": name[:200],
                "calls": round(calls[name] / steps, 2),
                "us": round(took[name] / steps, 1),
            }
            for name in sorted(took, key=took.__getitem__, reverse=True)
        ],
    }


def take(port: int, model: str, count: int, folder: Path) -> dict[str, Any]:
    """Profile `count` streams, 4 seconds after they began (their prompts took less than one on each card tried).

    Trace's name → step; with several GPUs the name holds the rank.
    """
    before = set(folder.glob("*.json.gz"))
    streams = [drain.Stream(port, model, number, 1024) for number in range(count)]
    for stream in streams:
        stream.start()
    time.sleep(4)
    answers = [drain.post(port, "/start_profile", {})]
    time.sleep(3)
    answers.append(drain.post(port, "/stop_profile", {}))
    for stream in streams:
        stream.join(60)
    wrong = [text for status, text in answers if status != 200] + [one.error for one in streams if one.error]
    if wrong:
        return {"none": {"error": wrong[0]}}
    return {path.name: read(path) for path in sorted(set(folder.glob("*.json.gz")) - before)}


def parts(step: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Part of the step → milliseconds and kernels."""
    out: dict[str, tuple[float, float]] = {}
    for kernel in step["kernels"]:
        fits = (name for name, pattern in PARTS.items() if re.search(pattern, kernel["name"]))
        name = REST if kernel["calls"] < FEW else next(fits)
        ms, calls = out.get(name, (0.0, 0.0))
        out[name] = ms + kernel["us"] / 1000, calls + kernel["calls"]
    return out | {"between kernels": (step["step_ms"] - step["busy_ms"], 0), "a step": (step["step_ms"], 0)}


def main() -> None:
    """A line per part and step."""
    for step in json.loads(Path(sys.argv[1]).read_text()):
        if "error" in step:
            print(step["error"])
            continue
        print(f"{step['streams']} streams, {step['steps']} steps")
        for name, (ms, calls) in parts(step).items():
            print(f"  {ms:6.2f} ms {calls:5.0f}  {name}")


if __name__ == "__main__":
    main()
