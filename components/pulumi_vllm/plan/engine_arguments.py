"""vLLM's arguments as typed values. `command_line` is the only place where they become words."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FlagValue = bool | int | float | str
Flags = Mapping[str, FlagValue]
"""Argument name without dashes → value. True stands for the bare flag, False for its `--no-` form."""

UNLIMITED_IMAGES = 999
"""vLLM's own limit of images in a request (0.26.0)."""

PARALLEL_SIZES = (
    "tensor-parallel-size",
    "pipeline-parallel-size",
    "data-parallel-size",
    "prefill-context-parallel-size",
)
"""Arguments whose product is the number of ranks, one GPU each (ParallelConfig of 0.26.0)."""

CAPTURE_SIZES, _COMPILED = "cudagraph-capture-sizes", "compilation-config"

SEVERAL_WORDS = frozenset(
    {
        "allowed-media-domains", "api-key", "collect-detailed-traces", "cpu-offload-params", CAPTURE_SIZES,
        "ignore-patterns", "kv-cache-dtype-skip-layers", "logits-processors", "lora-modules", "lora-target-modules",
        "numa-bind-cpus", "numa-bind-nodes", "offload-params", "served-model-name", "sleep-preserve-parameter-names",
    }
)  # fmt: skip
"""Arguments that take several words. Their value is text, with a blank between two words."""

_SUFFIXED = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT])")
_FACTORS = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True, slots=True)
class EngineArguments:
    """The arguments of one start of vLLM.

    `flags` holds all of them. The other fields are those that decide memory, parallelism and images, as numbers. A
    field is None if its argument is unset or cannot be read. The linter reports what cannot be read.
    """

    flags: Flags
    context: int | None
    sequences: int | None
    batched_tokens: int | None
    utilization: float | None
    parallel_sizes: tuple[int, ...] | None
    image_limit: int

    @classmethod
    def of(cls, flags: Flags) -> EngineArguments:
        """Read the values of flags once."""
        sizes = [_positive(flags.get(name, 1)) for name in PARALLEL_SIZES]
        return cls(
            flags=flags,
            context=_positive(flags.get("max-model-len")),
            sequences=_positive(flags.get("max-num-seqs")),
            batched_tokens=_positive(flags.get("max-num-batched-tokens")),
            utilization=_utilization(flags.get("gpu-memory-utilization")),
            parallel_sizes=None if None in sizes else tuple(size for size in sizes if size),
            image_limit=_image_limit(flags),
        )

    def changed(self, changes: Flags) -> EngineArguments:
        """These arguments with some set or replaced."""
        return EngineArguments.of({**self.flags, **changes})

    @property
    def tensor_parallel(self) -> int:
        """GPUs that share each layer; 1 if unset."""
        return _positive(self.flags.get("tensor-parallel-size")) or 1

    @property
    def ranks(self) -> int | None:
        """GPUs that the arguments ask for; None if a size cannot be read."""
        return None if self.parallel_sizes is None else math.prod(self.parallel_sizes)

    @property
    def chunked_prefill(self) -> bool:
        """Whether a prompt may be split over several steps, which is vLLM's default."""
        return self.flags.get("enable-chunked-prefill") is not False

    @property
    def cuda_graphs(self) -> bool:
        """Whether vLLM captures CUDA graphs, which is its default."""
        return (
            self.flags.get("enforce-eager") is not True
            and json_object(self.flags, _COMPILED).get("cudagraph_mode") != "NONE"
        )

    @property
    def capture_size(self) -> int | None:
        """Sequences of the largest captured CUDA graph; None if unset."""
        written = _compiled_with(self.flags, "max-cudagraph-capture-size")
        return max(self.capture_sizes, default=_positive(written))

    @property
    def capture_sizes(self) -> tuple[int, ...]:
        """Sequences of each captured CUDA graph; none if unset or unreadable."""
        written = _compiled_with(self.flags, CAPTURE_SIZES)
        words = written if isinstance(written, list) else str(written or "").split()
        sizes = [_positive(size) for size in words]
        return () if None in sizes else tuple(size for size in sizes if size)

    @property
    def fp8_cache(self) -> bool:
        """Whether the KV cache has 8 bits per value instead of 16."""
        return str(self.flags.get("kv-cache-dtype", "")).startswith("fp8")

    def command_line(self) -> tuple[str, ...]:
        """The words that follow the program's name."""
        words: list[str] = []
        for name, value in self.flags.items():
            if isinstance(value, bool):
                words.append(f"--{name}" if value else f"--no-{name}")
            else:
                words += [f"--{name}", *(str(value).split() if name in SEVERAL_WORDS else [str(value)])]
        return tuple(words)


def json_object(flags: Flags, name: str) -> Mapping[str, Any]:
    """The content of a JSON argument; empty if unset, unreadable or not an object."""
    try:
        found = json.loads(str(flags.get(name, "{}")))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def whole_number(value: object) -> int | None:
    """A whole number as vLLM reads it: 32768, 32k (32,000), 32K (32,768) or 1.5k; None for anything else.

    Only the decimal suffixes allow a fraction (human_readable_int of 0.26.0).
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    text = str(value).strip()
    match = _SUFFIXED.fullmatch(text)
    try:
        if match is None:
            return int(text)
        digits, suffix = match.groups()
        return int(digits) * _FACTORS[suffix] if suffix.isupper() else int(float(digits) * _FACTORS[suffix])
    except (ValueError, OverflowError):
        return None


def number(value: object) -> float | None:
    """A number as vLLM reads it; None for anything else."""
    try:
        return float(str(value))
    except ValueError:
        return None


def _positive(value: object) -> int | None:
    found = whole_number(value)
    return None if found is None or found < 1 else found


def _compiled_with(flags: Flags, name: str) -> object:
    """An argument's value, or that of its key in the JSON of --compilation-config; None if both are unset."""
    return flags[name] if name in flags else json_object(flags, _COMPILED).get(name.replace("-", "_"))


def _utilization(value: object) -> float | None:
    """A fraction of the GPU's memory, above 0 and at most 1."""
    found = number(value)
    return found if found is not None and 0 < found <= 1 else None


def _image_limit(flags: Flags) -> int:
    """Images that one request may hold. With 0, vLLM does not load the vision tower (MultiModalConfig of 0.26.0)."""
    if flags.get("language-model-only") is True:
        return 0
    name = "limit-mm-per-prompt"
    dotted = flags.get(f"{name}.image.count", flags.get(f"{name}.image"))
    try:
        limit: Any
        limit = json.loads(str(flags.get(name, "{}")))["image"] if dotted is None else json.loads(str(dotted))
        return max(0, int(limit["count"] if isinstance(limit, dict) else limit))
    except (ValueError, LookupError, TypeError):  # unset, or reported by the linter
        return UNLIMITED_IMAGES
