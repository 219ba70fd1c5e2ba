"""Phrases about a memory budget that explanations, refusals and lint findings share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pulumi_vllm.plan.memory import Budget


def counted_images(count: int) -> str:
    """A number of images as a phrase."""
    return f"{count} images" if count > 1 else "an image"


def need_above_limit(budget: Budget) -> str:
    """What is needed above vLLM's limit, and how much is left there."""
    what = (
        "CUDA graphs, fragmentation and images" if budget.accepts_images else "CUDA graphs and fragmentation"
    )
    return f"{what} need {budget.beyond_gib:.2f} GiB above the limit, and {budget.above_limit_gib:.2f} GiB are left"


def free_above_limit(budget: Budget, dashes: str = "") -> str:
    """The remedy that leaves more memory above vLLM's limit."""
    remedies = [f"{budget.safe_utilization:.2f} or less"] if budget.safe_utilization else []
    remedies += [f"a smaller {dashes}max-num-batched-tokens"] if budget.burst_gib else []
    remedies += [f"{dashes}language-model-only"] if budget.accepts_images else []
    return f"use {', or '.join(remedies)}"
