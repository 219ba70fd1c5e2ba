"""The linter: what is known to fail or mislead in vLLM's arguments, each rule with its evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulumi_vllm.plan.lint import (
    capacity,
    chat,
    exposure,
    host_system,
    kernels,
    parallelism,
    parsing,
    performance,
    weight_files,
)
from pulumi_vllm.plan.lint.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pulumi_vllm.plan.launch import Launch
    from pulumi_vllm.plan.lint.findings import Problems

__all__ = ["RULES", "Finding", "lint"]

_RULES: tuple[Callable[[Launch], Problems], ...] = (
    parsing.unknown_flag,
    parsing.invalid_value,
    parsing.count_below_one,
    capacity.batch_too_small,
    parsing.deprecated_flag,
    parsing.conflicting_flags,
    weight_files.unknown_repository,
    capacity.context_length,
    capacity.too_many_sequences,
    capacity.gpu_memory_utilization,
    capacity.unmodelled_memory,
    host_system.driver_too_old,
    chat.reasoning_effort,
    chat.image_limit,
    performance.sequences_without_graph,
    performance.prefix_caching,
    host_system.environment_variables,
    kernels.dtype,
    kernels.kv_cache_dtype,
    kernels.attention_backend,
    kernels.quantization,
    kernels.moe_backend,
    host_system.shutdown_timeout,
    chat.mistral_common_version,
    parallelism.tensor_parallel_size,
    parallelism.idle_gpus,
    weight_files.load_format,
    exposure.api_key,
    exposure.listen_address,
    performance.speculative_decoding,
    kernels.nvfp4_on_hopper,
)

RULES: Mapping[str, Callable[[Launch], Problems]] = {rule.__name__.replace("_", "-"): rule for rule in _RULES}
"""Rule id → rule. `engine.ignore` takes the ids."""


def lint(launch: Launch, ignore: Mapping[str, str]) -> tuple[Finding, ...]:
    """Every finding about a launch, errors first; `ignore` maps rule ids to the reason to ignore them."""
    findings = [
        Finding(name, problem.severity, problem.message, problem.evidence, ignore.get(name))
        for name, rule in RULES.items()
        for problem in rule(launch)
    ]
    return tuple(sorted(findings, key=lambda finding: finding.severity))
