"""Says why a deployment does not fit its machine, and what would fit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pulumi_vllm.plan import engine_count, engine_setup, memory, memory_text, pricing
from pulumi_vllm.plan.catalogue import CPU, GPU_COUNTS
from pulumi_vllm.plan.memory_settings import MemorySettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pulumi_vllm.plan.catalogue import Catalogue, Gpu, Precision
    from pulumi_vllm.plan.config import Deployment
    from pulumi_vllm.plan.engine_arguments import EngineArguments
    from pulumi_vllm.plan.memory import Budget
    from pulumi_vllm.plan.selection import Selection

_CONTEXT_STEP = 1024


def shortfall(
    deployment: Deployment,
    selection: Selection,
    arguments: EngineArguments,
    budget: Budget,
    catalogue: Catalogue,
) -> str:
    """The error: how much memory is missing, because of which flags, and what would fit."""
    if not budget.short_gib:
        problem, remedy = memory_text.need_above_limit(budget), memory_text.free_above_limit(budget)
        return f"server.engine.flags.gpu-memory-utilization: {problem}; {remedy}"
    causes = _responsible_flags(deployment, selection)
    context = budget.longest_request // _CONTEXT_STEP * _CONTEXT_STEP
    remedies = [f"context {context} here"] if context else []
    remedies += _fewer_engines(deployment, selection)
    remedies += _other_precisions(deployment, selection, arguments)
    remedies += _cheapest_machine(deployment, selection, arguments, catalogue)
    remedy = f"use {' or '.join(remedies)}" if remedies else "no machine of the catalogue holds it"
    machine = deployment.machine.named
    if selection.engines > 1:
        machine += f" with {selection.engines} engines"
    refusal = f"{selection.model.name} in {selection.precision.name} does not fit {machine}"
    reason = _reason(deployment, selection, budget, causes)
    if not causes:
        return f"server.context: {refusal}: {reason}; {remedy}"
    flags = " and ".join(f"{name} {deployment.engine.flags[name]}" for name in causes)
    leave_out = f"leave {'it' if len(causes) == 1 else 'them'} out" + (f", or {remedy}" if remedies else "")
    return f"server.engine.flags: {refusal} with {flags}: {reason}; {leave_out}"


def _reason(deployment: Deployment, selection: Selection, budget: Budget, causes: tuple[str, ...]) -> str:
    """What takes the memory."""
    missing = f"{budget.short_gib:.2f} GiB per GPU are missing"
    images = ""
    if budget.images_per_step and "max-num-batched-tokens" in causes:
        count = memory_text.counted_images(budget.images_per_step)
        images = f" for {count} of the largest size in one step, most of which language-model-only saves"
    if budget.longest_request >= _CONTEXT_STEP:
        needed = f"{deployment.context:,} tokens need {budget.request_gib:.2f} GiB of KV cache"
        reason = f"{needed}, {budget.cache_gib:.2f} GiB are free"
        return f"{reason}, {missing}" + (f"; {budget.activation_gib:.2f} GiB are{images}" if images else "")
    usual = selection.engine.flags["gpu-memory-utilization"]
    if budget.weights_gib > max(budget.limit_gib, budget.visible_gib * usual):
        return f"{missing}, the weights alone take {budget.weights_gib:.1f} of {budget.limit_gib:.1f} GiB"
    return (
        f"{missing}: of {budget.limit_gib:.1f} GiB weights take {budget.weights_gib:.1f} "
        f"and activation {budget.activation_gib:.1f}{images}"
    )


def _responsible_flags(deployment: Deployment, selection: Selection) -> tuple[str, ...]:
    """The fewest of the stack file's own flags without which it would fit this machine."""
    own = deployment.engine.flags

    def fits_without(names: tuple[str, ...]) -> bool:
        kept = {name: value for name, value in own.items() if name not in names}
        engine = deployment.engine.model_copy(update={"flags": kept})
        reduced = engine_setup.arguments(deployment.model_copy(update={"engine": engine}), selection)
        budget = engine_setup.memory_budget(selection, reduced)
        return budget is not None and budget.fits

    causes = tuple(own)
    if not fits_without(causes):
        return ()
    for name in own:
        fewer = tuple(one for one in causes if one != name)
        causes = fewer if fits_without(fewer) else causes
    return causes


def _fewer_engines(deployment: Deployment, selection: Selection) -> Iterator[str]:
    """The most engines, fewer than asked for, with which it fits this machine."""
    for engines in reversed(engine_count.divisors(deployment.machine.count)):
        fewer = replace(selection, engines=engines)
        if engines < selection.engines:
            budget = engine_setup.memory_budget(fewer, engine_setup.arguments(deployment, fewer))
            if budget is not None and budget.fits:
                yield f"machine.engines {engines} here"
                return


def _other_precisions(
    deployment: Deployment, selection: Selection, arguments: EngineArguments
) -> Iterator[str]:
    """Other precisions that fit this machine. A fine-tune exists in one."""
    if deployment.weights.repository is not None:
        return
    for precision in selection.model.precisions.values():
        here = (selection.gpu, selection.gpus_of_each(deployment.machine.count))
        if precision.name != selection.precision.name and _fits(selection, arguments, precision, *here):
            yield f"precision {precision.name} here"


def _cheapest_machine(
    deployment: Deployment, selection: Selection, arguments: EngineArguments, catalogue: Catalogue
) -> Iterator[str]:
    """The cheapest machine that fits, by the dated price list, because a refusal must not need the network."""
    machines = [
        (usd, count, gpu.name)
        for gpu in catalogue.gpus.values()
        for count in (GPU_COUNTS if gpu.name != CPU else ())
        if count % selection.engines == 0
        if (usd := pricing.list_price(gpu, count, deployment.machine.billing)) is not None
        and _fits(selection, arguments, selection.precision, gpu, count // selection.engines)
    ]
    if machines:
        usd, count, gpu_name = min(machines)
        yield f"{count}x {gpu_name} (${usd:.2f}/h)"


def _fits(
    selection: Selection, arguments: EngineArguments, precision: Precision, gpu: Gpu, count: int
) -> bool:
    model, engine = selection.model, selection.engine
    if model.dimensions.heads % count:
        return False
    changed = arguments.changed({"tensor-parallel-size": count})
    settings = MemorySettings.of(changed, engine, gpu, model.maximum_context)
    return memory.safe_budget(model.dimensions, precision, engine, gpu, settings).fits
