"""What of vLLM's arguments matters for memory. A value that can't be read counts as unset: the lint tells it."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from pulumi_vllm.plan.memory import IMAGES, Load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pulumi_vllm.plan.catalogue import Dimensions, Engine

_SUFFIXED = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT])")
_FACTORS = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SEQUENCES = 1024
"""vLLM's own max-num-seqs for a server on GPUs of 70 GiB and more (source of 0.26.0 and 0.33.0)."""
_UTILIZATION = 0.92
"""vLLM's own (0.26.0 and 0.33.0)."""

DIVISIONS = (
    "tensor-parallel-size",
    "pipeline-parallel-size",
    "data-parallel-size",
    "prefill-context-parallel-size",
)
"""Arguments whose product is the number of ranks, one GPU each (ParallelConfig of 0.26.0)."""

COUNTS = ("max-model-len", "max-num-batched-tokens", "max-num-seqs", *DIVISIONS)
"""Arguments that vLLM's configuration refuses below 1; its parser takes them."""

UNCOUNTED = (
    "pipeline-parallel-size",
    "data-parallel-size",
    "decode-context-parallel-size",
    "prefill-context-parallel-size",
    "enable-expert-parallel",
    "kv-cache-memory-bytes",
    "num-gpu-blocks-override",
    "cpu-offload-gb",
    "enable-lora",
    "speculative-config",
    "max-cudagraph-capture-size",
    "cudagraph-capture-sizes",
)
"""Arguments that change what a GPU holds, and that no formula here knows."""


def whole(value: object) -> int | None:
    """A whole number as vLLM reads it: 32768, 32k (32,000), 32K (32,768) or 1.5k; None for anything else.

    A fraction goes with the decimal suffixes only (human_readable_int of 0.26.0).
    """
    if isinstance(value, bool):
        return None
    written = str(value).strip()
    found = _SUFFIXED.fullmatch(written)
    try:
        if found is None:
            return int(written)
        digits, suffix = found.groups()
        return int(digits) * _FACTORS[suffix] if suffix.isupper() else int(float(digits) * _FACTORS[suffix])
    except (ValueError, OverflowError):
        return None


def count(value: object) -> int | None:
    """A whole number of 1 and more; None for anything else, which the lint tells."""
    found = whole(value)
    return None if found is None or found < 1 else found


def number(value: object) -> float | None:
    """A number as vLLM reads it; None for anything else."""
    try:
        return float(str(value))
    except ValueError:
        return None


def utilization(value: object) -> float | None:
    """A part of the memory above 0 and at most 1; None for anything else."""
    found = number(value)
    return found if found is not None and 0 < found <= 1 else None


def divisions(flags: Mapping[str, Any]) -> tuple[int, ...] | None:
    """How a command line divides the model over GPUs, in the order of DIVISIONS; None if it can't be read."""
    found = [count(flags.get(name, 1)) for name in DIVISIONS]
    return None if None in found else tuple(one for one in found if one)


def ranks(flags: Mapping[str, Any]) -> int | None:
    """GPUs that a command line asks for; None if it can't be read."""
    found = divisions(flags)
    return None if found is None else math.prod(found)


def image_limit(flags: Mapping[str, Any]) -> int:
    """Images that one request may have; with none vLLM leaves the vision tower out (MultiModalConfig of 0.26.0)."""
    if flags.get("language-model-only") in (True, ""):
        return 0
    name = "limit-mm-per-prompt"
    dotted = flags.get(f"{name}.image.count", flags.get(f"{name}.image"))
    try:
        given = json.loads(str(flags.get(name, "{}")))["image"] if dotted is None else json.loads(str(dotted))
        return max(0, int(given["count"] if isinstance(given, dict) else given))
    except (ValueError, LookupError, TypeError):  # unset, or what the lint tells
        return IMAGES


def accepts_images(sizes: Dimensions, flags: Mapping[str, Any]) -> bool:
    """Whether a model sees and its command line lets it."""
    return bool(sizes.vision) and image_limit(flags) > 0


def pairs(argv: Sequence[str]) -> dict[str, str]:
    """A plan's command line by name; a bare flag has ""."""
    found: dict[str, str] = {}
    name = ""
    for word in argv:
        if word.startswith("--"):
            name = word.removeprefix("--")
            found[name] = ""
        else:
            found[name] = word
    return found


def others(started: Sequence[str], argv: Sequence[str]) -> str:
    """What a command line that was started says differently from this one."""
    if not started:
        return "similar ones"
    kept, now = pairs(started), pairs(argv)
    changed = [f"--{name} {value}".rstrip() for name, value in kept.items() if now.get(name) != value]
    changed += [f"without --{name}" for name in sorted(now.keys() - kept.keys())]
    return f"others ({', '.join(changed)})"


def load_of(flags: Mapping[str, Any], engine: Engine, longest: int) -> Load:
    """The load of a command line; `longest` is the context where none is set."""
    context, batch = count(flags.get("max-model-len")) or longest, int(engine.memory["batched_tokens"])
    if flags.get("enable-chunked-prefill") is False:
        batch = max(batch, context)  # a prompt is one step (EngineArgs of 0.26.0)
    return Load(
        tensor_parallel=count(flags.get("tensor-parallel-size")) or 1,
        context=context,
        sequences=count(flags.get("max-num-seqs")) or _SEQUENCES,
        utilization=utilization(flags.get("gpu-memory-utilization")) or _UTILIZATION,
        batched_tokens=count(flags.get("max-num-batched-tokens")) or batch,
        images=image_limit(flags),
        graphs=flags.get("enforce-eager") is not True,
        cache_bytes=1 if str(flags.get("kv-cache-dtype", "")).startswith("fp8") else 2,
    )
