"""The plan in sentences: where the memory goes, why these flags, by how much something does not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pulumi_vllm.plan import flags_machine, memory
from pulumi_vllm.plan import pricing as price
from pulumi_vllm.plan import spot_pricing as price_spot
from pulumi_vllm.plan.engine_arguments import count, others, pairs, ranks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pulumi_vllm.plan.catalogue import Measured
    from pulumi_vllm.plan.config import Deployment
    from pulumi_vllm.plan.flags import Finding
    from pulumi_vllm.plan.memory import Budget
    from pulumi_vllm.plan.pricing import Price, Rate
    from pulumi_vllm.plan.selection import Selection

_STEP = 1024


def budget(found: Budget | None) -> tuple[str, ...]:
    """One line per part of a GPU's memory."""
    if found is None:
        return ("CPU: the KV cache is 1 GiB of main memory.",)
    return (
        f"visible {found.visible_gib:.2f} GiB, vLLM may use {found.limit_gib:.2f} (measured)",
        f"weights {found.weights_gib:.2f} GiB (computed from published dimensions)",
        f"activation {found.activation_gib:.2f} GiB (computed){_images(found)}",
        f"CUDA graphs {found.graphs_gib:.2f} GiB (computed), up to {found.graphs_excess_gib:.2f} more in use",
        f"other {found.other_gib:.2f} GiB (measured)",
        (
            f"KV cache {found.cache_gib:.2f} GiB = {found.kv_tokens:,} tokens, "
            f"{found.full_requests:.1f} requests of {found.context:,} tokens (computed)"
        ),
    )


def _images(found: Budget) -> str:
    """What activation is for, where it is not the text."""
    if not found.images_per_step:
        return ""
    return f" for reading {flags_machine.counted(found.images_per_step)} of the largest size at once"


def because(
    deployment: Deployment,
    choice: Selection,
    found: Budget | None,
    cost: Price,
    *,
    findings: tuple[Finding, ...],
    measured: Measured | None,
    argv: tuple[str, ...],
    tokens: tuple[Rate | None, float | None],
) -> tuple[str, ...]:
    """Why this plan, and what to know about it; `tokens` are their rate and USD per million."""
    machine = deployment.machine
    lines = [f"vLLM {choice.engine.version}: the newest of the catalogue for such a machine."]
    if deployment.engine.version is not None:
        lines = [f"vLLM {choice.engine.version}: named in the stack file."]
    lines += _memory(deployment, choice, found, pairs(argv))
    if found is not None:
        lines.append(_measurement(f"{machine.count}x {machine.gpu}", measured, argv))
    lines.append(cost.sentence())
    storage = price.storage_per_month(deployment.storage_gb)
    lines.append(
        f"The volume of {deployment.storage_gb} GB costs ${storage:.2f} per month, also while no machine holds it "
        f"({price.data()['storage']['source']})."
    )
    if cost.billing == "spot" and cost.usd_per_hour is not None:
        lines.append(price_spot.expect(measured).sentence(cost.usd_per_hour))
    rate, per_million = tokens
    if rate is not None and per_million is not None:
        lines.append(
            f"${per_million:.2f} per million output tokens, if it is always that busy "
            f"(computed from {rate.sentence()})."
        )
    for one in findings:
        ignored = "" if one.ignored is None else f" Ignored: {one.ignored}."
        lines.append(f"{one.severity.capitalize()} ({one.rule}): {one.sentence}.{ignored}")
    return tuple(lines)


def _memory(
    deployment: Deployment, choice: Selection, found: Budget | None, given: Mapping[str, Any]
) -> Iterator[str]:
    """Where a GPU's memory goes, and what that means for the requests."""
    machine, name = deployment.machine, choice.model.name
    if found is None:
        yield f"{name} runs on the CPU: it shows that everything works, not how fast a GPU is."
        return
    where = f"{machine.count}x {machine.gpu}"
    used = ranks(given)
    if used is not None and used < machine.count:
        where = f"{used} of {where}"
    yield (
        f"{name} in {choice.precision.name} takes {found.weights_gib:.1f} of {found.limit_gib:.1f} GiB on each "
        f"of {where}; the KV cache holds {found.kv_tokens:,} tokens."
    )
    if found.full_requests < deployment.sequences:
        yield (
            f"{deployment.sequences} requests at once have {found.kv_tokens // deployment.sequences:,} tokens "
            f"each; at the full {deployment.context:,} only {found.full_requests:.1f} run and the rest wait."
        )
    usual = choice.engine.flags["gpu-memory-utilization"]
    if found.limit_gib < usual * found.visible_gib - 0.001:
        yield (
            f"vLLM may use {found.limit_gib / found.visible_gib:.2f} of each GPU, not {usual}: beyond its own "
            f"limit it needs up to {found.beyond_gib:.1f} GiB, and {found.above_limit_gib:.1f} are left for that."
        )
    if machine.count > 1 and choice.model.dimensions.attention["kind"] == "mla":
        yield "The latent KV cache is whole on every GPU: tensor parallelism divides the weights, not the cache."
    if choice.model.dimensions.vision:
        parallel = count(given.get("tensor-parallel-size")) or 1
        tower = (
            f"{memory.tower_bytes(choice.model.dimensions, parallel) / memory.GIB:.2f} GiB per GPU (computed)"
        )
        if not found.accepts_images:
            yield f"Images are refused: the vision tower is left out, {tower}."
        else:
            yield f"Images are accepted: the vision tower takes {tower}."
            yield from _step_of_images(choice, found, given)


def _step_of_images(choice: Selection, found: Budget, given: Mapping[str, Any]) -> Iterator[str]:
    """What a step full of images takes, and why the batch is smaller than vLLM's own."""
    batch, usual = count(given.get("max-num-batched-tokens")), choice.engine.memory["batched_tokens"]
    ours = choice.vision_flags.get("max-num-batched-tokens")
    if batch is not None and batch == ours and batch < usual:
        yield (
            f"max-num-batched-tokens {batch:,}, not vLLM's {usual:,}: what a step of images "
            "takes grows with the square of it, and ended the engine there (lab/notes/fits.md)."
        )
    if round(found.burst_gib, 1):
        yield (
            f"A step full of images takes up to {found.burst_gib:.1f} GiB beyond what vLLM sets aside, "
            f"of the {found.above_limit_gib:.1f} above its limit (computed)."
        )


def _measurement(machine: str, measured: Measured | None, argv: tuple[str, ...]) -> str:
    if measured is None:
        return f"These flags were never started on {machine}: memory and start are computed, unverified."
    speed = "".join(
        f"{rate:,.0f} output tokens/s at {streams} streams, "
        for streams, rate in sorted(measured.tokens_per_s.items())[-1:]
    )
    ready = "ready after " + ", ".join(
        f"{seconds} s on a {host}" for host, seconds in measured.ready_s.items()
    )
    lost = f"; it was lost under load: {measured.died_of}" if measured.died_of else ""
    head = f"Measured {measured.date} on {machine} with exactly these flags: "
    if measured.flags != argv:
        head = (
            f"These flags were never started on {machine}; "
            f"{others(measured.flags, argv)} were, on {measured.date}: "
        )
    return f"{head}{speed}{measured.kv_tokens:,} KV tokens, {ready}{lost} ({measured.conditions})."


def shortfall(
    deployment: Deployment,
    choice: Selection,
    found: Budget,
    nearest: tuple[str, ...],
    causes: tuple[str, ...],
) -> str:
    """By how much it does not fit, because of which flags, and the nearest things that would."""
    machine = f"{deployment.machine.count}x {deployment.machine.gpu}"
    if not found.short_gib:
        return (
            f"server.engine.flags.gpu-memory-utilization: {flags_machine.beyond(found, 'need')}; "
            f"{flags_machine.make_room(found)}"
        )
    head = f"{choice.model.name} in {choice.precision.name} does not fit {machine}"
    missing = f"{found.short_gib:.2f} GiB per GPU are missing"
    fitting = found.kv_tokens // _STEP * _STEP
    usual = choice.engine.flags["gpu-memory-utilization"]
    images = ""
    if found.images_per_step and "max-num-batched-tokens" in causes:
        images = f"{_images(found)}, most of which language-model-only saves"
    if fitting:
        needed = deployment.context * found.kv_bytes_per_token / 2**30
        tokens = f"{deployment.context:,} tokens need {needed:.2f} GiB of KV cache"
        why = f"{tokens}, {found.cache_gib:.2f} GiB are free, {missing}"
        why += f"; {found.activation_gib:.2f} GiB are{images}" if images else ""
    elif found.weights_gib > max(found.limit_gib, found.visible_gib * usual):
        why = f"{missing}, the weights alone take {found.weights_gib:.1f} of {found.limit_gib:.1f} GiB"
    else:
        why = f"{missing}: of {found.limit_gib:.1f} GiB weights take {found.weights_gib:.1f} "
        why += f"and activation {found.activation_gib:.1f}{images}"
    remedies = (*((f"context {fitting} here",) if fitting else ()), *nearest)
    remedy = f"use {' or '.join(remedies)}" if remedies else "no machine of the catalogue holds it"
    if not causes:
        return f"server.context: {head}: {why}; {remedy}"
    flags = " and ".join(f"{name} {deployment.engine.flags[name]}" for name in causes)
    out = f"leave {'it' if len(causes) == 1 else 'them'} out"
    return f"server.engine.flags: {head} with {flags}: {why}; {out}" + (f", or {remedy}" if remedies else "")
