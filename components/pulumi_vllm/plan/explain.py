"""Turns a finished Plan into text: its JSON with a label for every figure, its reasons, and a drawing of the memory."""

from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING, Any

from pulumi_vllm.plan import engines_compared, key_limits, memory_text, pricing, spot_pricing, weight_memory
from pulumi_vllm.plan.engine_setup import CACHE_BYTES
from pulumi_vllm.plan.evidence import difference
from pulumi_vllm.plan.memory_settings import GIB, default_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pulumi_vllm.plan.catalogue import Gpu
    from pulumi_vllm.plan.evidence import Match
    from pulumi_vllm.plan.memory import Budget
    from pulumi_vllm.plan.planner import Plan

MEMORY_FIGURES = (
    "fits",
    "weights_gib_per_gpu",
    "kv_cache_gib_per_gpu",
    "kv_cache_tokens",
    "full_length_requests",
)
"""Figures of `summary` that the memory formulas yield; GiB are those of one GPU."""

EXPORTED = ("plan", "memory", "flags", "usd_per_million_output_tokens", "gateway")
"""Outputs of a stack that `exported` returns."""

_RENTED = (
    "machine",
    "billing",
    "model",
    "precision",
    "engine",
    "thinks",
    "vocabulary",
    "disk_gib",
    "usd_per_hour",
    "usd_per_month",
    "storage_usd_per_month",
)

_DRAWING_WIDTH = 60


def summary(plan: Plan) -> dict[str, Any]:
    """The plan as JSON without secrets: the output `plan` of a Server."""
    month = None if plan.usd_per_hour is None else round(plan.usd_per_hour * pricing.HOURS_PER_MONTH, 2)
    per_million = plan.usd_per_million_output_tokens
    return {
        "machine": _machine(plan),
        "billing": "own machine" if plan.deployment.machine.is_own else plan.deployment.machine.billing,
        "model": plan.model.name,
        "precision": plan.precision,
        "engine": plan.engine.version,
        "thinks": plan.model.thinks,
        "vocabulary": plan.model.dimensions.vocabulary,
        "flags": list(plan.argv),
        "environment": dict(plan.environment),
        "budget": list(memory_lines(plan.memory, plan.model.name, plan.selection.gpu)),
        "disk_gib": plan.disk_gib,
        "usd_per_hour": plan.usd_per_hour,
        "usd_per_month": month,
        "storage_usd_per_month": round(pricing.storage_per_month(plan.deployment.storage_gb), 2),
        **_scheduled(plan),
        "usd_per_million_output_tokens": None if per_million is None else round(per_million, 4),
        "usd_per_million_load": None if plan.rate is None else plan.rate.load,
        **_memory_figures(plan),
        "engines": plan.engines,
        "labels": labels(plan),
        "because": list(because(plan)),
        "findings": [dataclasses.asdict(finding) for finding in plan.findings],
    }


def _scheduled(plan: Plan) -> dict[str, float | None]:
    """Hours and price of a month by the stack file's schedule, the kept volume included. Empty without a schedule."""
    hours = plan.deployment.schedule.hours_per_month
    if hours is None:
        return {}
    storage, price = pricing.storage_per_month(plan.deployment.storage_gb), plan.usd_per_hour
    return {
        "scheduled_hours_per_month": round(hours, 1),
        "scheduled_usd_per_month": None if price is None else round(hours * price + storage, 2),
    }


def exported(summary: Mapping[str, Any]) -> dict[str, Any]:
    """A summary and the gateway's settings as a stack exports them: outputs by name, those of `EXPORTED`.

    Where one value of an output changes, the engine prints all of them, but of a text only the changed lines. So what
    changes together is one output, the flags are a text, and the explanations are left to `pulumi-vllm plan`.
    """
    lines: list[list[str]] = []
    for word in summary["flags"]:
        if word.startswith("--"):
            lines.append([])
        lines[-1].append(word)
    source = summary["labels"]["usd_per_hour"]
    return {
        "plan": {key: summary[key] for key in _RENTED} | _several(summary) | {"usd_per_hour_source": source},
        "memory": {key: summary[key] for key in MEMORY_FIGURES},
        "flags": "".join(f"{shlex.join(line)}\n" for line in lines),
        "usd_per_million_output_tokens": summary["usd_per_million_output_tokens"],
        "gateway": summary["gateway"],
    }


def _several(summary: Mapping[str, Any]) -> dict[str, int]:
    """The number of engines, where there are several."""
    engines = summary.get("engines") or 1
    return {"engines": engines} if engines > 1 else {}


def labels(plan: Plan) -> dict[str, str]:
    """Figure → `asked`, `measured`, `computed` or `unverified`, and where the figure comes from."""
    deployment = plan.deployment
    known = "asked" if deployment.machine.is_own else "computed"
    price = f"{'unverified' if plan.usd_per_hour is None else known}: {plan.price.source}"
    return {
        "machine": (
            "computed: of server.machine.gpu, the first that is on offer, or the first one"
            if plan.preferred
            else "asked: server.machine"
        ),
        "billing": f"asked: server.machine.{'cloud' if deployment.machine.is_own else 'billing'}",
        "model": "asked: server.model",
        "precision": "computed: the model's first"
        if deployment.precision is None
        else "asked: server.precision",
        "engine": "computed: the catalogue's default"
        if deployment.engine.version is None
        else "asked: server.engine.version",
        "engines": "computed: by the measured rates"
        if deployment.machine.engines is None
        else "asked: server.machine.engines",
        "thinks": "computed: from the model file",
        "vocabulary": "computed: from the model file",
        "disk_gib": "computed: published size of the weights, and the engine's caches",
        "budget": "computed: each line has its own label",
        **dict.fromkeys(MEMORY_FIGURES, _memory_label(plan)),
        "kv_cache_tokens": _cache_label(plan),
        "usd_per_hour": price,
        "usd_per_month": f"{price}; 730 hours",
        "storage_usd_per_month": "computed: no volume is rented"
        if deployment.machine.is_own
        else f"unverified: {pricing.assumptions()['storage']['source']}; 730 hours",
        **dict.fromkeys(_scheduled(plan), f"{price}; hours by server.schedule, volume included"),
        **dict.fromkeys(("usd_per_million_output_tokens", "usd_per_million_load"), _tokens_label(plan)),
        "flags": _flags_label(plan),
        "findings": "computed: rules over the arguments of vLLM's own parser; each names its evidence",
        "because": "computed: each sentence names its source",
    }


def because(plan: Plan) -> tuple[str, ...]:
    """The reasons for this plan, and what to know about it, one sentence or two per line."""
    return tuple(_because(plan))


_MEASURED_WITH = "mistral-small-4"
"""Model with which the constants of the engines' memory were measured (lab/notes/fits.md)."""


def memory_lines(budget: Budget | None, model: str, gpu: Gpu) -> tuple[str, ...]:
    """One line for each part of a GPU's memory, with its label."""
    if budget is None:
        return ("CPU: the KV cache is 1 GiB of main memory.",)
    constants = model == _MEASURED_WITH and gpu.measured
    other = (
        "measured" if constants else f"unverified: measured with {_MEASURED_WITH} on H100 and H200 (SXM) only"
    )
    return (
        f"visible {budget.visible_gib:.2f} GiB ({gpu.memory_from}), vLLM may use {budget.limit_gib:.2f} (computed)",
        f"weights {budget.weights_gib:.2f} GiB (computed from published dimensions)",
        f"activation {budget.activation_gib:.2f} GiB (computed){_images_in_step(budget)}",
        _graphs_line(budget, "computed" if gpu.measured else "unverified: from H100 and H200 (SXM)"),
        f"other {budget.other_gib:.2f} GiB ({other})",
        (
            f"KV cache {budget.cache_gib:.2f} GiB = {budget.kv_tokens:,} tokens, "
            f"{budget.full_requests:.1f} requests of {budget.context:,} tokens (computed)"
        ),
    )


def _graphs_line(budget: Budget, label: str) -> str:
    if budget.graphs_gib == 0 < budget.graphs_excess_gib:
        return f"CUDA graphs {budget.graphs_excess_gib:.2f} GiB above vLLM's limit ({label})"
    return (
        f"CUDA graphs {budget.graphs_gib:.2f} GiB ({label}), up to {budget.graphs_excess_gib:.2f} more in use"
    )


def memory_drawing(budget: Budget, coloured: Callable[[str, str], str]) -> str:
    """One GPU's memory as a bar with a legend; `coloured` applies an SGR code to a text."""
    every = (
        ("W", "34", "weights", budget.weights_gib),
        ("a", "35", "activation and other", budget.activation_gib + budget.other_gib),
        ("g", "33", "CUDA graphs", budget.graphs_gib),
        ("K", "32", "KV cache", budget.cache_gib),
        (".", "90", "above vLLM's limit", budget.above_limit_gib),
    )
    parts = [part for part in every if part[-1] > 0]  # 0.33.0's CUDA graphs lie above the limit
    bar, length, total = "", 0, 0.0
    for letter, colour, _, gib in parts:
        total += gib
        more = round(total / budget.visible_gib * _DRAWING_WIDTH) - length
        bar, length = bar + coloured(letter * more, colour), length + more
    legend = ", ".join(f"{coloured(letter, colour)} {name} {gib:.1f}" for letter, colour, name, gib in parts)
    return f"[{bar}]\nof each GPU's {budget.visible_gib:.1f} GiB: {legend}"


def _machine(plan: Plan) -> str:
    machine = plan.deployment.machine
    return f"{machine.count}x {machine.gpu}" if machine.count else machine.gpu


def _memory_figures(plan: Plan) -> dict[str, Any]:
    """The figures of MEMORY_FIGURES, over all engines. A plan that does not fit does not exist.

    `fits` is None where something is not counted that the GPU must hold.
    """
    budget = plan.memory
    if budget is None:
        return {"fits": True, **dict.fromkeys(MEMORY_FIGURES[1:])}
    return {
        "fits": None if budget.uncounted else True,
        "weights_gib_per_gpu": round(budget.weights_gib, 2),
        "kv_cache_gib_per_gpu": round(budget.cache_gib, 2),
        "kv_cache_tokens": plan.kv_tokens,
        "full_length_requests": round(plan.full_requests, 2),
    }


def _memory_label(plan: Plan) -> str:
    if plan.memory is None:
        return "unverified: there is no GPU whose memory could be too small"
    machine = _machine(plan)
    exact = plan.selection.precision.tensors
    source = "from the exact bytes of the tensors" if exact else "from published dimensions"
    if plan.memory.unverified:
        return f"unverified: computed {source}, but {'; '.join(plan.memory.unverified)}"
    return {
        "yes": f"computed: {source}; exactly these flags were started on {machine}",
        "other flags": f"computed: {source}; other flags were started on {machine}",
        "no": f"unverified: computed {source}, never started on {machine}",
    }[plan.measured]


def _cache_label(plan: Plan) -> str:
    """The label of the KV cache, with what vLLM reported where exactly these flags were started."""
    label, run = _memory_label(plan), plan.measured_run
    if plan.measured != "yes" or run is None:
        return label
    return f"{label}, and vLLM reported {run.kv_tokens:,} tokens ({run.date})"


def _flags_label(plan: Plan) -> str:
    if plan.memory is None and not plan.deployment.engine.flags:
        return "measured: started by the tests, with the context and concurrency of the stack local"
    machine = _machine(plan)
    return {
        "yes": f"measured: started on {machine}",
        "other flags": f"unverified: other flags were started on {machine}",
        "no": f"unverified: never started on {machine}",
    }[plan.measured]


def _tokens_label(plan: Plan) -> str:
    if plan.rate is None:
        return "unverified: no rate was measured"
    source = f"from the price and {plan.rate.sentence()}"
    exact = plan.measured == "yes"
    return f"computed: {source} (with these flags)" if exact else f"unverified: {source} (with other flags)"


def _preference(plan: Plan) -> Iterator[str]:
    """Which GPU of several this plan is of, and what the others would be."""
    if not plan.preferred:
        return
    yield f"server.machine.gpu prefers {', then '.join(plan.preferred)}. This is the plan of {_machine(plan)}."
    for other in plan.others:
        holds = "" if other.memory is None else f"{other.memory.kv_tokens:,} KV tokens, "
        price = other.price.sentence().removesuffix(".")
        yield f"With {_machine(other)}: {holds}vLLM {other.engine.version}. {price}."


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
        yield _evidence_reason(_machine(plan), plan.evidence, plan)
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
            f"(computed from {plan.rate.sentence()})."
        )
    for finding in plan.findings:
        ignored = "" if finding.ignored is None else f" Ignored: {finding.ignored}."
        yield f"{finding.severity.capitalize()} ({finding.rule}): {finding.message}.{ignored}"


def _schedule_reason(plan: Plan) -> Iterator[str]:
    found, schedule = _scheduled(plan), plan.deployment.schedule
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
    gpus = _machine(plan)
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
            f"vLLM gets the size of the KV cache ({CACHE_BYTES}), so that a start does not profile the memory. The run "
            "with otherwise these flags found as much or more by itself."
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


def _images_in_step(budget: Budget) -> str:
    """What the activation is for, if it is not text."""
    if not budget.images_per_step:
        return ""
    return f" for {memory_text.counted_images(budget.images_per_step)} of the largest size in one step"


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
