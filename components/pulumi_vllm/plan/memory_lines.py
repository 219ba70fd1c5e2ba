"""A GPU's memory in a finished Plan: a line for each part of it, and a drawing of all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulumi_vllm.plan import memory_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from pulumi_vllm.plan.catalogue import Gpu
    from pulumi_vllm.plan.memory import Budget

_MEASURED_WITH = "mistral-small-4"
"""Model with which the constants of the engines' memory were measured (lab/notes/fits.md)."""

_DRAWING_WIDTH = 60


def lines(budget: Budget | None, model: str, gpu: Gpu) -> tuple[str, ...]:
    """One line for each part of a GPU's memory, with its label."""
    if budget is None:
        return ("CPU: the KV cache of an engine is 1 GiB of main memory.",)
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


def drawing(budget: Budget, coloured: Callable[[str, str], str]) -> str:
    """One GPU's memory as a bar with a legend; `coloured` applies an SGR code to a text."""
    every = (
        ("W", "34", "weights", budget.weights_gib),
        ("a", "35", "activation and other", budget.activation_gib + budget.other_gib),
        ("g", "33", "CUDA graphs", budget.graphs_gib),
        ("K", "32", "KV cache", budget.cache_gib),
        (".", "90", "reserve above vLLM's limit", budget.above_limit_gib),
    )
    parts = [part for part in every if part[-1] > 0]  # 0.33.0's CUDA graphs lie above the limit
    bar, length, total = "", 0, 0.0
    for letter, colour, _, gib in parts:
        total += gib
        more = round(total / budget.visible_gib * _DRAWING_WIDTH) - length
        bar, length = bar + coloured(letter * more, colour), length + more
    legend = ", ".join(f"{coloured(letter, colour)} {name} {gib:.1f}" for letter, colour, name, gib in parts)
    return f"[{bar}]\nof each GPU's {budget.visible_gib:.1f} GiB: {legend}"


def _images_in_step(budget: Budget) -> str:
    """What the activation is for, if it is not text."""
    if not budget.images_per_step:
        return ""
    return f" for {memory_text.counted_images(budget.images_per_step)} of the largest size in one step"
