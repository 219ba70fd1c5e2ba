"""A plan as JSON: every figure, with a label that says how it is known: measured, computed or unverified."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from pulumi_vllm.plan import pricing as price

if TYPE_CHECKING:
    from pulumi_vllm.plan.planner import Plan

MEMORY = ("fits", "weights_gib_per_gpu", "kv_cache_gib_per_gpu", "kv_cache_tokens", "full_length_requests")
"""What the memory arithmetic says; of each GPU, GiB."""


def summary(plan: Plan) -> dict[str, Any]:
    """The `plan` output: JSON-able, no secrets."""
    machine = plan.deployment.machine
    return {
        "machine": _machine(plan),
        "billing": machine.billing,
        "model": plan.model.name,
        "precision": plan.precision,
        "engine": plan.engine.version,
        "flags": list(plan.argv),
        "environment": dict(plan.environment),
        "budget": list(plan.budget),
        "disk_gib": plan.disk_gib,
        "usd_per_hour": plan.usd_per_hour,
        "usd_per_month": None
        if plan.usd_per_hour is None
        else round(plan.usd_per_hour * price.HOURS_PER_MONTH, 2),
        "storage_usd_per_month": plan.storage_usd_per_month,
        "usd_per_million_output_tokens": plan.usd_per_million_output_tokens,
        **_memory(plan),
        "labels": labels(plan),
        "because": list(plan.because),
        "findings": [dataclasses.asdict(finding) for finding in plan.findings],
    }


def _machine(plan: Plan) -> str:
    machine = plan.deployment.machine
    return f"{machine.count}x {machine.gpu}" if machine.count else machine.gpu


def _memory(plan: Plan) -> dict[str, Any]:
    """A plan that does not fit is never made. Without a GPU there is nothing to tell."""
    found = plan.memory
    if found is None:
        return {"fits": True, **dict.fromkeys(MEMORY[1:])}
    return {
        "fits": True,
        "weights_gib_per_gpu": round(found.weights_gib, 2),
        "kv_cache_gib_per_gpu": round(found.cache_gib, 2),
        "kv_cache_tokens": found.kv_tokens,
        "full_length_requests": round(found.full_requests, 2),
    }


def labels(plan: Plan) -> dict[str, str]:
    """Figure → `measured`, `computed` or `unverified`, a colon, and from what."""
    machine = _machine(plan)
    started = {
        "yes": f"computed: from published dimensions; exactly these flags were started on {machine}",
        "other flags": f"computed: from published dimensions; other flags were started on {machine}",
        "no": f"unverified: computed from published dimensions, never started on {machine}",
    }[plan.measured]
    if plan.memory is None:
        started = "unverified: there is no GPU whose memory could be short"
    flags = {
        "yes": f"measured: started on {machine}",
        "other flags": f"unverified: others were started on {machine}",
    }.get(plan.measured, f"unverified: never started on {machine}")
    if plan.memory is None and not plan.deployment.engine.flags:
        flags = "measured: started by the tests, with the context and concurrency of stack local"
    tokens = "unverified: no rate was measured"
    if plan.rate is not None:
        tokens = {
            "yes": f"computed: from the price and {plan.rate.sentence()} (with these flags)",
            "other flags": f"unverified: from the price and {plan.rate.sentence()} (with other flags)",
        }[plan.measured]
    paid = f"{'unverified' if plan.usd_per_hour is None else 'computed'}: {plan.price_source}"
    return {
        **dict.fromkeys(MEMORY, started),
        "usd_per_hour": paid,
        "usd_per_month": f"{paid}; 730 hours",
        "storage_usd_per_month": f"unverified: {price.data()['storage']['source']}; 730 hours",
        "usd_per_million_output_tokens": tokens,
        "flags": flags,
        "findings": "computed: rules over the arguments of vLLM's own parser; each names its evidence",
        "because": "computed: each sentence names what it rests on",
    }
