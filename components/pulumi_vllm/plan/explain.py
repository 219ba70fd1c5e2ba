"""Turns a finished Plan into JSON with a label for every figure."""

from __future__ import annotations

import dataclasses
import shlex
from typing import TYPE_CHECKING, Any

from pulumi_vllm.plan import memory_lines, pricing, reasons

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pulumi_vllm.plan.planner import Plan

MEMORY_FIGURES = (
    "fits",
    "weights_gib_per_gpu",
    "kv_cache_gib_per_gpu",
    "kv_cache_tokens",
    "full_length_requests",
)
"""Figures of `summary` that the memory formulas yield; GiB are those of one GPU."""

_PER_MILLION = ("usd_per_million_output_tokens", "usd_per_million_load")
EXPORTED = ("plan", "memory", "flags", *_PER_MILLION, "gateway")
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


def summary(plan: Plan) -> dict[str, Any]:
    """The plan as JSON without secrets: the output `plan` of a Server."""
    month = None if plan.usd_per_hour is None else round(plan.usd_per_hour * pricing.HOURS_PER_MONTH, 2)
    per_million = plan.usd_per_million_output_tokens
    return {
        "machine": plan.deployment.machine.named,
        "billing": "own machine" if plan.deployment.machine.is_own else plan.deployment.machine.billing,
        "model": plan.model.name,
        "precision": plan.precision,
        "engine": plan.engine.version,
        "thinks": plan.model.thinks,
        "vocabulary": plan.model.dimensions.vocabulary,
        "flags": list(plan.argv),
        "environment": dict(plan.environment),
        "budget": list(memory_lines.lines(plan.memory, plan.model.name, plan.selection.gpu)),
        "disk_gib": plan.disk_gib,
        "usd_per_hour": plan.usd_per_hour,
        "usd_per_month": month,
        "storage_usd_per_month": round(pricing.storage_per_month(plan.deployment.storage_gb), 2),
        **pricing.scheduled(plan.deployment, plan.usd_per_hour),
        "usd_per_million_output_tokens": None if per_million is None else round(per_million, 4),
        "usd_per_million_load": None if plan.rate is None else plan.rate.load,
        **_memory_figures(plan),
        "engines": plan.engines,
        "labels": labels(plan),
        "because": list(reasons.because(plan)),
        "findings": [dataclasses.asdict(finding) for finding in plan.findings],
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
        **{key: summary[key] for key in _PER_MILLION},
        "gateway": summary["gateway"],
    }


def _several(summary: Mapping[str, Any]) -> dict[str, int]:
    """The number of engines, where there are several."""
    engines = summary.get("engines") or 1
    return {"engines": engines} if engines > 1 else {}


def labels(plan: Plan) -> dict[str, str]:
    """Figure → `asked`, `measured`, `computed` or `unverified`, and where the figure comes from."""
    deployment = plan.deployment
    scheduled = pricing.scheduled(deployment, plan.usd_per_hour)
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
        **dict.fromkeys(scheduled, f"{price}; hours by server.schedule, volume included"),
        **dict.fromkeys(_PER_MILLION, _tokens_label(plan)),
        "flags": _flags_label(plan),
        "findings": "computed: rules over the arguments of vLLM's own parser; each names its evidence",
        "because": "computed: each sentence names its source",
    }


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
    machine = plan.deployment.machine.named
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
    machine = plan.deployment.machine.named
    return {
        "yes": f"measured: started on {machine}",
        "other flags": f"unverified: other flags were started on {machine}",
        "no": f"unverified: never started on {machine}",
    }[plan.measured]


def _tokens_label(plan: Plan) -> str:
    if plan.rate is None:
        flags = f" with {', '.join(plan.without_rate)}" if plan.without_rate else ""
        return f"unverified: no rate was measured{flags}"
    source = f"from the price and {plan.rate.sentence()}"
    exact = plan.measured == "yes"
    return f"computed: {source} (with these flags)" if exact else f"unverified: {source} (with other flags)"
