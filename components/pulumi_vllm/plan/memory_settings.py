"""The settings of an engine that decide what a GPU holds, and the units in which memory is counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pulumi_vllm.plan.engine_arguments import UNLIMITED_IMAGES

if TYPE_CHECKING:
    from pulumi_vllm.plan.catalogue import Engine, Gpu
    from pulumi_vllm.plan.engine_arguments import EngineArguments

GIB = 2**30
BF16 = 2
"""Bytes of a number with 16 bits."""

_LARGE_GIB = 70
"""From so much memory on, except on A100, a server has larger defaults (EngineArgs of 0.26.0 and 0.33.0)."""
_DEFAULT_SEQUENCES, _SEQUENCES_OF_SMALL = 1024, 256
"""vLLM's own max-num-seqs for a server, on such GPUs and on others."""
_BATCH_OF_SMALL = 2048
"""vLLM's own max-num-batched-tokens for a server on the others."""
_DEFAULT_UTILIZATION = 0.92
"""vLLM's own gpu-memory-utilization (0.26.0 and 0.33.0)."""
_MOST_CAPTURED = 512
"""vLLM's own limit of max-cudagraph-capture-size (0.26.0 and 0.33.0)."""


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """The settings that decide what a GPU holds.

    `capture_size` is max-cudagraph-capture-size; None is vLLM's default. `images` is the limit of one request. With 0,
    vLLM does not load the vision tower.
    """

    tensor_parallel: int
    context: int
    sequences: int
    utilization: float
    batched_tokens: int
    images: int = UNLIMITED_IMAGES
    graphs: bool = True
    cache_bytes: int = BF16
    capture_size: int | None = None

    @property
    def largest_graph(self) -> int:
        """Sequences of the largest captured graph, by vLLM's default if `capture_size` is unset."""
        return default_capture_size(self.sequences) if self.capture_size is None else self.capture_size

    @property
    def largest_graph_used(self) -> int:
        """Sequences of the largest captured decode graph."""
        return min(self.sequences, self.largest_graph)

    @classmethod
    def of(cls, arguments: EngineArguments, engine: Engine, gpu: Gpu, longest: int) -> MemorySettings:
        """The settings of a command line, with vLLM's defaults; `longest` is the context if none is set."""
        context, batch = arguments.context or longest, default_batch(engine, gpu)
        if not arguments.chunked_prefill:
            batch = max(batch, context)  # a whole prompt is one step then (EngineArgs of 0.26.0)
        return cls(
            tensor_parallel=arguments.tensor_parallel,
            context=context,
            sequences=arguments.sequences
            or (_DEFAULT_SEQUENCES if has_large_defaults(gpu) else _SEQUENCES_OF_SMALL),
            utilization=arguments.utilization or _DEFAULT_UTILIZATION,
            batched_tokens=arguments.batched_tokens or batch,
            images=arguments.image_limit,
            graphs=arguments.cuda_graphs,
            cache_bytes=1 if arguments.fp8_cache else BF16,
            capture_size=arguments.capture_size,
        )


def has_large_defaults(gpu: Gpu) -> bool:
    """Whether vLLM's own batch and number of sequences are those of a large GPU."""
    return gpu.visible_gib >= _LARGE_GIB and "A100" not in gpu.name


def default_batch(engine: Engine, gpu: Gpu) -> int:
    """VLLM's own max-num-batched-tokens for a server on such a GPU."""
    return int(engine.memory["batched_tokens"]) if has_large_defaults(gpu) else _BATCH_OF_SMALL


def default_capture_size(sequences: int) -> int:
    """Sequences of the largest graph that vLLM captures if `max-cudagraph-capture-size` is unset (VllmConfig)."""
    return min(_MOST_CAPTURED, 2 * sequences)
