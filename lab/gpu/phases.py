"""Reads one vLLM server log: where the start went, what memory it reports, what it chose, what it complains of."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

# What ends a phase, in the order of a start. A phase lasts from the end of the one before.
ENDS = (
    ("imports", r"version \d+\.\d+"),
    ("engine_process", r"Initializing a V1 LLM engine"),
    ("device", r"Starting to load model"),
    ("weights", r"Model loading took"),
    ("torch_compile", r"torch\.compile took|Directly load AOT compilation|torch\.compile and initial"),
    ("first_run", r"Initial profiling/warmup run took"),
    ("first_kernels", r"Profiling CUDA graph memory"),
    ("memory_profile", r"Available KV cache memory"),
    ("kernel_warmup", r"Rank 0: Torch profiler disabled for CUDA graph capture|Capturing CUDA graphs"),
    ("graph_capture", r"Graph capturing finished"),
    ("engine_ready", r"init engine .* took"),
    ("http", r"Starting vLLM server"),
)

NUMBERS = {
    "weights_gib": r"Model loading took ([\d.]+) GiB",
    "weights_reported_s": r"Model loading took [\d.]+ GiB memory and ([\d.]+) seconds",
    "torch_compile_reported_s": r"torch\.compile took ([\d.]+) s",
    "first_run_reported_s": r"Initial profiling/warmup run took ([\d.]+) s",
    "kv_cache_gib": r"Available KV cache memory: ([\d.]+) GiB",
    "kv_tokens": r"GPU KV cache size: ([\d,]+) tokens",
    "graphs_estimated_gib": r"(?:Estimated CUDA graph memory: |GiB \(actual\), )([\d.]+) GiB",
    "graphs_actual_gib": r"CUDA graph pool memory: ([\d.]+) GiB",
    "graph_capture_reported_s": r"Graph capturing finished in (\d+) secs",
    "peak_activation_gib": r"([\d.]+) GiB for peak activation",
    "consumed_gib": r"Actual usage is ([\d.]+) GiB for consumed",
    "non_torch_gib": r"([\d.]+) GiB for non-torch",
    "visible_gib": r"Free memory on device \([\d.]+/([\d.]+) GiB\)",
    "limit_gib": r"Desired GPU memory utilization is \([\d.]+, ([\d.]+) GiB\)",
    "init_engine_reported_s": r"init engine .* took ([\d.]+) s",
    "max_num_batched_tokens": r"max_num_batched_tokens=(\d+)",
}

CHOICES = (
    r"Using \S+ attention backend",
    r"Using \S+ MLA prefill backend",
    r"Using '?\S+ (?:Fp8|NvFp4) MoE backend",
    r"Using \S+ for NVFP4 GEMM",
    r"Using FlashInfer for [^\n.]*",
    r"Directly load AOT compilation",
    r"saved AOT compiled function",
    r"Directly load the compiled graph\(s\)",
    r"Cache the graph of compile range",
    r"Compiling model again due to a load failure",
    r"Using default MoE config",
    r"Using Model Runner V\d|using the V1 model runner",
    r"Using \[[^\n]*\] all-reduce backends",
    r"Selected \S+Kernel for \S+",
    r"Using configuration from [^\n]*",
)

COMPLAINT = re.compile(
    r"error:|Error\b|ValueError|not supported|No valid|OutOfMemory|Triton kernel JIT compilation"
)
STAMP = re.compile(r"(?:INFO|WARNING|ERROR) (\d\d-\d\d \d\d:\d\d:\d\d) ")


def _when(line: str, year: int) -> datetime | None:
    found = STAMP.search(line)
    return datetime.strptime(f"{year}-{found[1]}", "%Y-%m-%d %H:%M:%S") if found else None  # noqa: DTZ007


def start_phases(text: str, started: datetime) -> dict[str, float]:
    """Seconds by phase. `started` is the process's start in the log's clock; the log counts whole seconds."""
    phases: dict[str, float] = {}
    at = started
    lines = text.splitlines()
    position = 0
    for name, pattern in ENDS:
        for index in range(position, len(lines)):
            when = _when(lines[index], started.year)
            if when is not None and re.search(pattern, lines[index]):
                phases[name] = max(0.0, round((when - at).total_seconds(), 1))
                at, position = max(at, when), index + 1
                break
    return phases


def numbers(text: str) -> dict[str, float]:
    """What the log reports; the first mention of each counts."""
    found = {name: re.search(pattern, text) for name, pattern in NUMBERS.items()}
    return {name: float(match[1].replace(",", "")) for name, match in found.items() if match}


def choices(text: str) -> list[str]:
    """Back ends, caches hit and missed, tuned tables."""
    return sorted({match[0][:160] for pattern in CHOICES for match in re.finditer(pattern, text)})


def complaints(text: str, last: int = 12) -> list[str]:
    """The last lines that look like the reason of a failure."""
    return [line[-300:] for line in text.splitlines() if COMPLAINT.search(line)][-last:]


def died_of(text: str) -> str | None:
    """Why an engine was lost, or never served: PyTorch's own account of the memory, or vLLM's that none is left."""
    found = re.search(
        r"(?:torch\.OutOfMemoryError|ValueError): (CUDA out of memory.*?unallocated|No available memory for the cache blocks)",
        text,
    )
    return found[1] if found else None


def read(text: str, started: datetime) -> dict[str, Any]:
    """All of it."""
    return {
        "phases_s": start_phases(text, started),
        "reported": numbers(text),
        "chose": choices(text),
        "complaints": complaints(text),
        "died_of": died_of(text),
    }
