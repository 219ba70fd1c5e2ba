"""What was measured of one engine and of several on one machine, and which of them it speaks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pulumi_vllm.plan import pricing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pulumi_vllm.plan.catalogue import Measured
    from pulumi_vllm.plan.pricing import Rate

LEAST_GAIN: Final = 1.1
"""How much faster several engines must have been measured to be chosen. One engine over all GPUs holds the weights
once, so that it has the larger cache and reads a long prompt in less time; a few percent don't outweigh that."""


def measured_rates(
    measured: Iterable[Measured], machine: tuple[str, str, str, str, int], streams: int
) -> dict[int, Rate]:
    """The best measured rate by number of engines, for so many streams in all.

    Args:
        measured: the runs of the catalogue.
        machine: model, precision, engine version, GPU and count.
        streams: requests that are served at the same time, on all engines together.
    """
    best: dict[int, Rate] = {}
    for run in measured:
        if (run.model, run.precision, run.engine, run.gpu, run.count) != machine:
            continue
        found = pricing.rate(run, streams)
        if found and (run.engines not in best or found.tokens_per_s > best[run.engines].tokens_per_s):
            best[run.engines] = found
    return best


def fastest(rates: Mapping[int, Rate]) -> int:
    """The number of engines that the measured rates speak for; 1 where nothing speaks for more."""
    if 1 not in rates:
        return 1
    best = max(rates, key=lambda engines: rates[engines].tokens_per_s)
    return best if rates[best].tokens_per_s >= LEAST_GAIN * rates[1].tokens_per_s else 1
