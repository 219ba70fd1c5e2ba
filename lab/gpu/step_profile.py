"""What a step is made of: PyTorch's profiler over some steps that only decode, or that read prompts, summed by kernel.

usage: step_profile.py RUN.steps.json      (what evidence.py keeps of measure.py --profile and --profile-prompts, of older
                                            runs RUN.decode-step.json; prints a table of parts)
The profiler slows the host down: a GPU that waits for the host here may not wait without it. Compare the step with one of
a load before the host is blamed.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import drain

STEPS = 24
ON_THE_GPU = {"kernel", "gpu_memcpy", "gpu_memset"}
STEP = re.compile(r"execute_context_\d+\((\d+)\)_generation_(\d+)\(")
"""How vLLM 0.26.0 names a step (gpu_worker.py, without detailed_trace_annotation): prompt tokens, decoding requests."""
MOST_TOKENS = 0.9
"""A step with at least this part of the largest one's prompt tokens counts as a full one."""

FEW, REST = 8, "head, sampling, copies"
"""What runs fewer times in every step belongs to no layer: it is the rest."""
PARTS = {
    REST: r"distribution_elementwise|^Memcpy (HtoD|DtoH)",
    "all-reduce": r"ncclDevKernel|cross_device_reduce",
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


def busy_us(ran: list[tuple[float, float, str]], begin: float, end: float) -> float:
    """Microseconds from begin to end in which a kernel runs; `ran` is sorted by its start: streams of one GPU overlap."""
    total, reached = 0.0, begin
    for since, until, _ in ran:
        total += max(0.0, min(until, end) - max(since, reached))
        reached = max(reached, until)
    return total


class Step(NamedTuple):
    """One step on one GPU: prompt tokens, decoding requests, its µs and those of them busy, kernels with their µs."""

    tokens: int
    decoding: int
    us: float
    busy_us: float
    kernels: list[tuple[str, float]]


def steps_of(events: list[dict[str, Any]]) -> list[Step]:
    """The steps of a trace in order, each from its mark to the next: what the GPU waits for the next one is in it.

    The last one is left out: with its last kernel's end it would have no such wait, and read too short.
    """
    marks = sorted(
        (event["ts"], event["tid"], int(named[1]), int(named[2]))
        for event in events
        if event.get("cat") == "gpu_user_annotation" and (named := STEP.search(event.get("name", "")))
    )
    # Each CUDA stream that a step uses has its own mark; every step uses the one that leads, of equals the first.
    streams = [stream for _, stream, *_ in marks]
    leading = max(streams, key=streams.count, default=None)
    ran = sorted(
        (event["ts"], event["ts"] + event["dur"], event["name"])
        for event in events
        if event.get("cat") in ON_THE_GPU
    )
    begins = [(at, tokens, decoding) for at, stream, tokens, decoding in marks if stream == leading]
    steps = []
    for (begin, tokens, decoding), (end, *_) in pairwise(begins):
        kernels = [(name, until - since) for since, until, name in ran if begin <= since < end]
        steps.append(Step(tokens, decoding, end - begin, busy_us(ran, begin, end), kernels))
    return steps


def read(path: Path, prompts: bool = False) -> dict[str, Any]:
    """Mean of the steps that only decode, or of those with the most prompt tokens (`prompts`); `error` without one.

    Milliseconds, of them busy (waiting for another GPU in an all-reduce is busy), prompt tokens, decoding `streams` in
    the last of them; kernels with calls and µs a step and the `most` calls in one. `prompt_steps`: every step that read
    prompts, as [prompt tokens, decoding requests, ms, busy ms].
    """
    steps = steps_of(json.loads(gzip.decompress(path.read_bytes()))["traceEvents"])
    reading = [one for one in steps if one.tokens]
    full = MOST_TOKENS * max((one.tokens for one in reading), default=0)
    chosen = (
        [one for one in reading if one.tokens >= full]
        if prompts
        else [one for one in steps if one.decoding and not one.tokens]
    )
    if not chosen:
        kind = "reads prompts" if prompts else "only decodes"
        return {"error": f"no step that {kind}, and another after it, in {path.name}"}
    calls, most, took = Counter[str](), Counter[str](), dict[str, float]()
    for one in chosen:
        here = Counter(name for name, _ in one.kernels)
        calls += here
        most |= here
        for name, us in one.kernels:
            took[name] = took.get(name, 0.0) + us
    count = len(chosen)
    return {
        "prompt_tokens": round(sum(one.tokens for one in chosen) / count),
        "streams": chosen[-1].decoding,
        "steps": count,
        "step_ms": round(sum(one.us for one in chosen) / count / 1000, 3),
        "busy_ms": round(sum(one.busy_us for one in chosen) / count / 1000, 3),
        "kernels": [
            {
                "name": name[:200],
                "calls": round(calls[name] / count, 2),
                "most": most[name],
                "us": round(took[name] / count, 1),
            }
            for name in sorted(took, key=took.__getitem__, reverse=True)
        ],
        "prompt_steps": [
            [one.tokens, one.decoding, round(one.us / 1000, 3), round(one.busy_us / 1000, 3)]
            for one in reading
        ],
    }


def new(
    folder: Path, before: set[Path], answers: list[tuple[int, str]], prompts: bool = False
) -> dict[str, Any]:
    """Name → step of each trace that was not there before, a trace for each GPU, its rank in the name.

    `none` → error, when one of the answers (status, text) is a refusal.
    """
    wrong = [text for status, text in answers if status != 200]
    if wrong:
        return {"none": {"error": wrong[0]}}
    return {path.name: read(path, prompts) for path in sorted(set(folder.glob("*.json.gz")) - before)}


def take(port: int, model: str, count: int, folder: Path) -> dict[str, Any]:
    """Profile `count` streams once their prompts are read, which took less than 4 s for 128 streams and 8 s for 512."""
    before = set(folder.glob("*.json.gz"))
    streams = [drain.Stream(port, model, number, 640) for number in range(count)]
    for stream in streams:
        stream.start()
    time.sleep(max(4, count / 50))
    answers = [drain.post(port, "/start_profile", {})]
    time.sleep(3)
    answers.append(drain.post(port, "/stop_profile", {}))
    for stream in streams:
        stream.join(60)
    return new(folder, before, answers + [(0, one.error) for one in streams if one.error])


def take_prompts(port: int, model: str, text: str, folder: Path) -> dict[str, Any]:
    """Profile the first steps of `TOKENS:REQUESTS`: so many prompts of so many tokens, all at once, one token out.

    Every prompt is drawn anew, so that no cache answers for it.
    """
    tokens, requests = (int(one) for one in text.split(":"))
    before = set(folder.glob("*.json.gz"))
    # The first 1,000 tokens of the vocabulary are control.
    prompts = [random.choices(range(1000, 131_072), k=tokens) for _ in range(requests)]
    bodies = [{"model": model, "prompt": prompt, "max_tokens": 1} for prompt in prompts]
    answers = [drain.post(port, "/start_profile", {})]
    with ThreadPoolExecutor(requests) as pool:
        answers += pool.map(lambda body: drain.post(port, "/v1/completions", body), bodies)
    answers.append(drain.post(port, "/stop_profile", {}))
    return new(folder, before, answers, prompts=True)


def parts(step: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Part of the step → milliseconds and kernels."""
    out: dict[str, tuple[float, float]] = {}
    for kernel in step["kernels"]:
        fits = (name for name, pattern in PARTS.items() if re.search(pattern, kernel["name"]))
        # Steps of unequal size take different kernels: a layer's may be few in the mean. Older files hold no `most`.
        name = REST if kernel.get("most", kernel["calls"]) < FEW else next(fits)
        ms, calls = out.get(name, (0.0, 0.0))
        out[name] = ms + kernel["us"] / 1000, calls + kernel["calls"]
    return out | {"between kernels": (step["step_ms"] - step["busy_ms"], 0), "a step": (step["step_ms"], 0)}


def main() -> None:
    """A line per part and step."""
    for step in json.loads(Path(sys.argv[1]).read_text()):
        if "error" in step:
            print(step["error"])
            continue
        tokens = step.get("prompt_tokens", 0)
        prompts = f"{tokens} prompt tokens, " if tokens else ""
        print(f"{prompts}{step['streams']} streams, {step['steps']} steps")
        for name, (ms, calls) in parts(step).items():
            print(f"  {ms:6.2f} ms {calls:5.0f}  {name}")
        for read_tokens, decoding, ms, busy in step.get("prompt_steps", []):
            print(f"  {ms:6.2f} ms, busy {busy:6.2f}: {read_tokens} prompt tokens, {decoding} streams")


if __name__ == "__main__":
    main()
