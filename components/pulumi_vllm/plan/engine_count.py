"""How many engines a machine may run: one over all of its GPUs, or several with a part of the GPUs each."""

from __future__ import annotations

from typing import Final

MOST_ENGINES: Final = 8
"""The most GPUs of one machine, with one engine on each. Engines on a CPU, for the local cloud, are no more."""


def divisors(count: int) -> tuple[int, ...]:
    """Numbers of engines among which the GPUs of a machine can be divided evenly."""
    return tuple(engines for engines in range(1, count + 1) if count % engines == 0)
