"""The reasons for a finished Plan, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulumi_vllm.plan import cuda_graphs, engines_compared, key_limits, pricing, spot_pricing, weight_memory
from pulumi_vllm.plan.engine_arguments import CAPTURE_SIZES
from pulumi_vllm.plan.engine_setup import CACHE_BYTES
from pulumi_vllm.plan.evidence import difference
from pulumi_vllm.plan.memory_settings import GIB, default_batch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pulumi_vllm.plan.catalogue import Gpu
    from pulumi_vllm.plan.evidence import Match
    from pulumi_vllm.plan.memory import Budget
    from pulumi_vllm.plan.planner import Plan


def because(plan: Plan) -> tuple[str, ...]:
    """The reasons for this plan, and what to know about it, one sentence or two per line."""
    return tuple(_because(plan))


def _preference(plan: Plan) -> Iterator[str]:
    """Which GPU of several this plan is of, and what the others would be."""
    if not plan.preferred:
        return
    preferred, machine = ", then ".join(plan.preferred), plan.deployment.machine.named
    yield f"server.machine.gpu prefers {preferred}. This is the plan of {machine}."
    for other in plan.others:
        holds = "" if other.memory is None else f"{other.memory.kv_tokens:,} KV tokens, "
        price = other.price.sentence().removesuffix(".")
        yield f"With {other.deployment.machine.named}: {holds}vLLM {other.engine.version}. {price}."


def _because(plan: Plan) -> Iterator[str]:
    deployment, price = plan.deployment, plan.price
    yield from _preference(plan)
    if deployment.engine.version is None:
        yield f"vLLM {plan.engine.version} is the catalogue's default for such a machine."
    else:
        yield f"vLLM {plan.engine.version} is named in the stack file."
    if plan.deployment.weights.repository is not None:
        yield (
            f"The weights are {plan.repository} at {plan.revision[:12]}. All figures are those of {plan.model.name}, "
            "whose dimensions they must have; nothing checked that."
        )
    for sentence in plan.model.unknown:
        yield f"Unknown about {plan.model.name}: {sentence}."
    if plan.memory is None:
        yield from engines_compared.sentences(plan)
        yield f"{plan.model.name} runs on the CPU, which shows that everything works, not how fast a GPU is."
    else:
        yield from engines_compared.sentences(plan)
        yield from _memory_reasons(plan, plan.memory)
        yield _evidence_reason(plan.deployment.machine.named, plan.evidence, plan)
    yield from key_limits.sentences(deployment)
    yield price.sentence()
    if deployment.machine.is_own:
        yield (
            f"Nothing is rented. {deployment.store.place} on the machine keeps weights and caches, which need "
            f"{plan.disk_gib} GiB; the preflight measures it."
        )
    else:
        yield (
            f"The volume of {deployment.storage_gb} GB costs "
            f"${pricing.storage_per_month(deployment.storage_gb):.2f} per month, also while it is not attached "
            f"({pricing.assumptions()['storage']['source']})."
        )
    yield from _schedule_reason(plan)
    if price.billing == "spot" and price.usd_per_hour is not None:
        yield spot_pricing.expected(plan.measured_run).sentence(price.usd_per_hour)
    if plan.rate is not None and plan.usd_per_million_output_tokens is not None:
        yield (
            f"${plan.usd_per_million_output_tokens:.2f} per million output tokens if the server is always that busy "
            f"(computed from {plan.rate.sentence()}{'' if plan.measured == 'yes' else ', with other flags'})."
        )
    for finding in plan.findings:
        ignored = "" if finding.ignored is None else f" Ignored: {finding.ignored}."
        yield f"{finding.severity.capitalize()} ({finding.rule}): {finding.message}.{ignored}"


def _schedule_reason(plan: Plan) -> Iterator[str]:
    found, schedule = pricing.scheduled(plan.deployment, plan.usd_per_hour), plan.deployment.schedule
    if not found:
        return
    hours, usd = found["scheduled_hours_per_month"], found["scheduled_usd_per_month"]
    head = f"By the schedule (up {schedule.up}, down {schedule.down}, UTC) the machine runs {hours:,.1f} of 730 hours"
    if usd is None or plan.usd_per_hour is None:
        yield f"{head} a month."
        return
    storage = pricing.storage_per_month(plan.deployment.storage_gb)
    always = plan.usd_per_hour * pricing.HOURS_PER_MONTH + storage
    yield (
        f"{head} a month: ${usd:,.2f} with the volume, which is kept, instead of ${always:,.2f} (computed). "
        "Nothing runs it by itself: see docs/how-to/schedule.md."
    )


def _memory_reasons(plan: Plan, budget: Budget) -> Iterator[str]:
    """How a GPU's memory is used, and what that means for requests."""
    yield from _gpu_reason(plan.selection.gpu)
    deployment, machine = plan.deployment, plan.deployment.machine
    gpus = plan.deployment.machine.named
    used = plan.arguments.ranks
    if used is not None and used * plan.engines < machine.count:
        gpus = f"{used} of {gpus}"
    yield (
        f"{plan.model.name} in {plan.precision} takes {budget.weights_gib:.1f} of {budget.limit_gib:.1f} GiB on each "
        f"of {gpus}; the KV cache {'of each engine ' if plan.engines > 1 else ''}holds {budget.kv_tokens:,} tokens."
    )
    if plan.full_requests < deployment.sequences:
        yield (
            f"With {deployment.sequences} requests at once, each has {plan.kv_tokens // deployment.sequences:,} "
            f"tokens of the KV cache. At the full {deployment.context:,} tokens, only {plan.full_requests:.1f} "
            "requests run and the others wait."
        )
    if plan.engine.given_cache and CACHE_BYTES in plan.arguments.flags:
        yield (
            f"vLLM gets the size of the KV cache ({CACHE_BYTES}), so that a start does not profile the memory. A "
            "start that was measured without it held at least as many tokens."
        )
    sizes = plan.arguments.capture_sizes
    if cuda_graphs.are_few_sizes(plan.arguments.flags.get(CAPTURE_SIZES)):
        yield (
            f"vLLM records its work on the GPU (CUDA graphs) for {len(sizes)} sizes of a batch in place of "
            f"{len(cuda_graphs.usual_sizes(sizes[-1]))} ({CAPTURE_SIZES}). It is ready 20 s sooner and answers as fast "
            "(one H200, 2026-12-01)."
        )
    usual = plan.engine.flags["gpu-memory-utilization"]
    if budget.limit_gib < usual * budget.visible_gib - 0.001:
        yield (
            f"vLLM may use {budget.limit_gib / budget.visible_gib:.2f} of each GPU instead of {usual}: above its own "
            f"limit it needs up to {budget.beyond_gib:.1f} GiB, and {budget.above_limit_gib:.1f} GiB are left for that."
        )
    if plan.gpus_of_each > 1 and plan.model.dimensions.attention["kind"] == "mla":
        yield "Under tensor parallelism the MLA KV cache is replicated on every GPU; only the weights are sharded."
    if budget.kv_bytes_per_request:
        yield (
            f"Beside its tokens, each request takes {budget.kv_bytes_per_request / GIB:.2f} GiB of the KV cache: "
            "layers with a sliding window or with linear attention do not keep every token."
        )
    if plan.model.dimensions.vision:
        tower = weight_memory.tower_bytes(plan.model.dimensions, plan.arguments.tensor_parallel) / GIB
        size = f"{tower:.2f} GiB per GPU (computed)"
        if budget.accepts_images:
            yield f"Images are accepted: the vision tower takes {size}."
            yield from _image_reasons(plan, budget)
        else:
            yield f"Images are refused: the vision tower is not loaded, which saves {size}."


def _gpu_reason(gpu: Gpu) -> Iterator[str]:
    """What is known of a GPU on which nothing was measured."""
    if gpu.measured or gpu.bandwidth_gb_s is None:
        return
    link = "no NVLink"
    if gpu.nvlink_gb_s is not None:
        link = f"NVLink of {gpu.nvlink_gb_s:,} GB/s{' between two cards' if gpu.nvlink_pairs else ''}"
    yield (
        f"{gpu.name} ({gpu.form}, compute capability {gpu.compute_capability}) has {gpu.bandwidth_gb_s:,} GB/s of "
        f"memory bandwidth and {link} (data sheet). No engine was started on it here."
    )


def _image_reasons(plan: Plan, budget: Budget) -> Iterator[str]:
    """What a step full of images takes, and why the batch is smaller than vLLM's own."""
    batch, usual = plan.arguments.batched_tokens, default_batch(plan.engine, plan.selection.gpu)
    chosen = plan.selection.vision_flags.get("max-num-batched-tokens")
    if batch is not None and batch == chosen and batch < usual:
        yield (
            f"max-num-batched-tokens is {batch:,} instead of vLLM's {usual:,}: the memory of a step full of images "
            "grows with the square of it, and larger batches crashed the engine (lab/notes/fits.md)."
        )
    if round(budget.burst_gib, 1):
        yield (
            f"A step full of images takes up to {budget.burst_gib:.1f} GiB beyond vLLM's profiled peak, out of the "
            f"{budget.above_limit_gib:.1f} GiB above its limit (computed)."
        )


def _evidence_reason(machine: str, match: Match | None, plan: Plan) -> str:
    if match is None:
        return f"These flags were never started on {machine}: memory and start are computed, unverified."
    run = match.run
    rates = sorted(run.tokens_per_s.items())[-1:]
    speed = "".join(f"{rate:,.0f} output tokens/s at {streams} streams, " for streams, rate in rates)
    ready = "ready after " + ", ".join(f"{seconds} s on a {host}" for host, seconds in run.ready_s.items())
    crash = f"; the engine crashed under load: {run.died_of}" if run.died_of else ""
    head = f"Measured {run.date} on {machine} with exactly these flags: "
    if not match.exact:
        head = (
            f"These flags were never started on {machine}; "
            f"{difference(run, plan.arguments)} were, on {run.date}: "
        )
    return f"{head}{speed}{run.kv_tokens:,} KV tokens, {ready}{crash} ({run.conditions})."
