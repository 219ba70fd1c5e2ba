"""Rules about GPU memory: what the context, the batch and the requests need, and what is left for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulumi_vllm.plan import cuda_graphs, memory, memory_text
from pulumi_vllm.plan.engine_arguments import CAPTURE_SIZES, number
from pulumi_vllm.plan.lint.findings import error, warning

if TYPE_CHECKING:
    from pulumi_vllm.plan.launch import Launch
    from pulumi_vllm.plan.lint.findings import Problems
    from pulumi_vllm.plan.memory import Budget

_COMPUTED = "computed from published dimensions"
_MEASURED_TOKENS = 768
"""Tokens of one request of the measured load: 512 in and 256 out (2026-11-23)."""


def batch_too_small(launch: Launch) -> Problems:
    """A batch that cannot hold what a step must hold."""
    arguments, evidence = launch.arguments, "SchedulerConfig.verify_max_model_len of vLLM 0.26.0 (source)"
    batch, sequences = arguments.batched_tokens, arguments.sequences
    length = arguments.context or launch.model.maximum_context
    if batch is None:
        return  # vLLM's default is large enough
    if sequences is not None and batch < sequences:
        yield error(
            f"--max-num-batched-tokens {batch} is below the {sequences} requests of --max-num-seqs, and vLLM does not "
            f"start; use {sequences} or more",
            evidence,
        )
    if not arguments.chunked_prefill and batch < length:
        yield error(
            f"--max-num-batched-tokens {batch} without chunked prefill must hold a prompt of {length:,} tokens, and "
            f"vLLM does not start; use {length} or more",
            evidence,
        )


def context_length(launch: Launch) -> Problems:
    """A context that is unset, beyond the model, or larger than the KV cache."""
    written, budget = launch.arguments.flags.get("max-model-len"), launch.budget
    limit, tokens = launch.model.maximum_context, launch.arguments.context
    if written is None:
        yield warning(
            f"no --max-model-len: the configuration advertises {launch.model.dimensions.rope_positions:,} tokens; "
            f"set it to at most {limit}",
            "the published configuration against the vendor's limit",
        )
        if budget is not None and budget.short_gib:
            yield error(_shortage("no --max-model-len", budget), _COMPUTED)
    elif tokens is None:  # "auto", which takes what is free, or a value that another rule reports
        if budget is not None and not budget.kv_tokens:
            yield error(_shortage(f"--max-model-len {written}", budget), _COMPUTED)
    elif tokens > limit:
        yield error(
            f"--max-model-len {written} is beyond what the vendor supports; use {limit}", "the vendor's limit"
        )
    elif budget is not None and budget.short_gib:
        yield error(_shortage(f"--max-model-len {written}", budget), _COMPUTED)


def too_many_sequences(launch: Launch) -> Problems:
    """More requests at once than the KV cache can serve."""
    sequences, budget = launch.arguments.sequences, launch.budget
    if budget is None or budget.short_gib or not sequences:
        return
    tokens = budget.kv_tokens
    if tokens < sequences * _MEASURED_TOKENS:
        yield warning(
            f"--max-num-seqs {sequences}: the KV cache holds {tokens // sequences:,} tokens per request, and vLLM "
            f"preempts requests beyond that; use {max(1, tokens // _MEASURED_TOKENS)} or fewer{launch.of_each_engine}",
            f"computed; a request of the measured load had {_MEASURED_TOKENS} tokens",
        )


def gpu_memory_utilization(launch: Launch) -> Problems:
    """A utilization that is invalid, or that leaves too little memory above vLLM's limit."""
    arguments, budget = launch.arguments, launch.budget
    written = arguments.flags.get("gpu-memory-utilization")
    if number(written) is not None and arguments.utilization is None:
        yield error(
            f"--gpu-memory-utilization {written} is not a fraction of the memory; use 0.95",
            "the configuration check of vLLM 0.33.0, run",
        )
    elif budget is not None and budget.beyond_gib > budget.above_limit_gib:
        flag = f"--gpu-memory-utilization {written}"
        if written is None:
            flag = f"no --gpu-memory-utilization (vLLM's own {budget.limit_gib / budget.visible_gib:.2f})"
        evidence = "0.99 ran out of memory on one H200 and 0.98 started, 2026-11-24"
        if arguments.tensor_parallel > 1:  # the headroom depends on it too
            evidence = "0.95 ran out of memory on two H100 under load, 2026-11-26"
        if launch.gpu is not None and not launch.gpu.measured:
            evidence = f"what H100 and H200 needed there; never measured on {launch.gpu.name}"
        elif budget.accepts_images:
            evidence = "requests with five images crashed vLLM on one H100, two H100 and one H200, 2026-11-26"
        problem, remedy = memory_text.need_above_limit(budget), memory_text.free_above_limit(budget, "--")
        yield error(f"{flag}: {problem}; {remedy}", evidence)


def unmodelled_memory(launch: Launch) -> Problems:
    """Arguments that change memory in a way that the plan does not compute."""
    flags = launch.arguments.flags
    for sentence in launch.budget.unverified if launch.budget is not None else ():
        yield warning(
            f"{launch.model.name}: {sentence}; try it before you rely on the memory figures",
            "neither computed by the plan nor measured",
        )
    found = [name for name in memory.UNMODELLED if flags.get(name) not in (None, False)]
    # The figures are those of vLLM's own graphs. Fewer need less.
    found += [] if cuda_graphs.are_usual(launch.arguments.capture_sizes) else [CAPTURE_SIZES]
    if memory.accepts_images(launch.model.dimensions, launch.arguments):
        found += ["skip-mm-profiling"] if flags.get("skip-mm-profiling") else []
        found += ["mm-encoder-tp-mode"] if flags.get("mm-encoder-tp-mode") == "data" else []
    if found:
        written = ", ".join(f"--{name}" for name in found)
        yield warning(
            f"{written}: the plan's memory figures do not include this; try it before you rely on them",
            "neither computed by the plan nor measured",
        )


def _shortage(flag: str, budget: Budget) -> str:
    """What takes the memory, and what to do."""
    remedy = "use more or larger GPUs"
    if budget.longest_request:
        remedy = f"use {budget.longest_request} or fewer"
    elif budget.weights_gib < budget.visible_gib:
        can_be_higher = budget.limit_gib < budget.safe_utilization * budget.visible_gib
        remedies = ["a higher --gpu-memory-utilization"] if can_be_higher else []
        remedies.append("fewer --max-num-batched-tokens")
        if budget.images_per_step and budget.weights_gib < budget.limit_gib:
            remedies.append("--language-model-only")
        remedy = f"use {', '.join(remedies)} or more GPUs"
    images = budget.images_per_step
    for_images = f" for {memory_text.counted_images(images)} in one step" if images else ""
    return (
        f"{flag}: {budget.short_gib:.2f} GiB per GPU are missing. Of {budget.limit_gib:.1f} GiB, weights take "
        f"{budget.weights_gib:.1f} and activation {budget.activation_gib:.1f}{for_images}, and the KV cache holds "
        f"{budget.kv_tokens:,} tokens; {remedy}"
    )
