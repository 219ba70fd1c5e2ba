"""Rules about settings that make vLLM slower."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulumi_vllm.plan import cuda_graphs, memory_settings
from pulumi_vllm.plan.lint.findings import error, warning

if TYPE_CHECKING:
    from pulumi_vllm.plan.launch import Launch
    from pulumi_vllm.plan.lint.findings import Problems

_MEASURED = "PixtralForConditionalGeneration"
"""Class of Mistral Small 4, with which speculative decoding was tried."""


def sequences_without_graph(launch: Launch) -> Problems:
    """More requests at once than the largest captured CUDA graph holds."""
    arguments = launch.arguments
    sequences = arguments.sequences
    if sequences is None or not launch.on_gpu or not arguments.cuda_graphs:
        return
    largest = arguments.capture_size or memory_settings.default_capture_size(sequences)
    if sequences > largest:
        enough = cuda_graphs.capture_size_for(sequences)
        remedy = (
            f"add {enough} to the listed sizes"
            if arguments.capture_sizes
            else f"set --max-cudagraph-capture-size {enough}"
        )
        yield error(
            f"--max-num-seqs {sequences}: CUDA graphs are captured for at most {largest} sequences, and a decode step "
            f"beyond them takes longer; {remedy} or use {largest} sequences{launch.of_each_engine}",
            "Mistral Small 4 in FP8 on one H200: 52 ms per token at 512 streams, 136 ms at 768 (2026-11-29)",
        )


def prefix_caching(launch: Launch) -> Problems:
    """Prefix caching that is switched off."""
    if launch.arguments.flags.get("enable-prefix-caching") is False:
        yield warning(
            "--no-enable-prefix-caching is not needed, prefix caching works with an fp8 KV cache too; leave it out",
            "the configuration check of vLLM 0.33.0 accepts both, run",
        )


def speculative_decoding(launch: Launch) -> Problems:
    """Speculative decoding, which was slower where it was measured: Mistral Small 4."""
    if "speculative-config" in launch.arguments.flags and launch.model.architecture == _MEASURED:
        yield warning(
            "speculative decoding was slower where it was measured; try it before you keep it",
            "published test of Mistral Small 4 on another GPU: 35 tok/s with, 69 without",
        )
