"""The linter: what is known to fail or mislead in vLLM's arguments, each rule with its evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulumi_vllm.plan.lint import (
    capacity,
    chat,
    conflicts,
    exposure,
    host_system,
    json_arguments,
    kernels,
    ownership,
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
    parsing.out_of_range,
    capacity.batch_too_small,
    parsing.deprecated_flag,
    conflicts.conflicting_flags,
    json_arguments.incomplete_value,
    ownership.secret_in_flag,
    ownership.product_flag,
    ownership.loads_from_elsewhere,
    ownership.trusted_input,
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
    kernels.block_size,
    kernels.moe_backend,
    host_system.shutdown_timeout,
    chat.mistral_common_version,
    parallelism.tensor_parallel_size,
    parallelism.idle_gpus,
    parallelism.slow_links,
    weight_files.load_format,
    exposure.api_key,
    exposure.listen_address,
    performance.speculative_decoding,
    kernels.nvfp4_on_hopper,
    kernels.weights_without_arithmetic,
    host_system.processor,
)

RULES: Mapping[str, Callable[[Launch], Problems]] = {rule.__name__.replace("_", "-"): rule for rule in _RULES}
"""Rule id → rule. `engine.ignore` takes the ids."""


def lint(launch: Launch, ignore: Mapping[str, str]) -> tuple[Finding, ...]:
    """Every finding about a launch, errors first; `ignore` maps rule ids to the reason to ignore them."""
    findings = [
        Finding(
            name,
            problem.severity,
            ownership.without_secrets(launch, problem.message),
            problem.evidence,
            ignore.get(name),
        )
        for name, rule in RULES.items()
        for problem in rule(launch)
    ]
    return tuple(sorted(findings, key=lambda finding: finding.severity))
