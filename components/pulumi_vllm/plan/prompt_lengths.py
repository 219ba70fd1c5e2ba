"""What was measured by the length of a prompt: how fast prompts are read, and how much they slow the answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pulumi_vllm.plan.catalogue import Measured


@dataclass(frozen=True, slots=True)
class Lengths:
    """Figures of a machine with so many `engines`, by tokens of the prompt.

    `prompt_rates` are input tokens per second of the whole machine. `token_ms` are milliseconds per output token of a
    request that an engine serves alone. `versions` are the other versions of vLLM that some of them are from;
    `one_engine` is true if some are from one engine on its part of the GPUs.
    """

    prompt_rates: Mapping[int, float] = field(default_factory=dict)
    token_ms: Mapping[int, float] = field(default_factory=dict)
    engines: int = 1
    versions: tuple[str, ...] = ()
    one_engine: bool = False

    @property
    def longest(self) -> int:
        """The longest prompt whose reading was measured; 0 if none was."""
        return max(self.prompt_rates, default=0)

    def prompt_s(self, tokens: int) -> float:
        """Seconds of a busy machine for a prompt of so many tokens.

        Attention makes the time per token grow linearly with the prompt's length.
        """
        per_token = {length: 1 / rate for length, rate in self.prompt_rates.items()}
        return tokens * max(_linear(per_token, tokens), min(per_token.values()))

    def longer_token_s(self, tokens: float, than: float) -> float:
        """Seconds of a machine for each output token, beyond those behind a shorter prompt; never below 0.

        Each step reads the cache of all its requests, so that a long one makes it longer for all. How much was measured
        with one request at a time, which is the dearest case.
        """
        more = _linear(self.token_ms, tokens) - _linear(self.token_ms, than)
        return max(0.0, more) / 1000 / self.engines


def lengths(measured: Iterable[Measured], run: Measured | None) -> Lengths:
    """The run's own figures, and other runs' for lengths that it lacks.

    The others had the same weights on the same machine, or were one of several engines on its part of the GPUs. Those
    of the same machine come first, then those of the same version, then the latest.
    """
    if run is None:
        return Lengths()
    parts = {(run.count, run.engines), (run.count // run.engines, 1)}
    others = (
        one
        for one in measured
        if (one.model, one.precision, one.gpu) == (run.model, run.precision, run.gpu)
        and (one.count, one.engines) in parts
    )
    rates: dict[int, tuple[float, Measured]] = {}
    waits: dict[int, tuple[float, Measured]] = {}

    def nearness(one: Measured) -> tuple[bool, bool, bool, str]:
        return one == run, one.engines == run.engines, one.engine == run.engine, one.date

    for one in sorted(others, key=nearness):
        times = run.engines // one.engines
        rates |= {length: (rate * times, one) for length, rate in one.prompt_rates.items()}
        waits |= {length: (wait, one) for length, wait in one.token_ms.items()}
    used = [one for _, one in (*rates.values(), *waits.values())]
    return Lengths(
        {length: rate for length, (rate, _) in sorted(rates.items())},
        {length: wait for length, (wait, _) in sorted(waits.items())},
        run.engines,
        tuple(sorted({one.engine for one in used} - {run.engine})),
        any(one.engines != run.engines for one in used),
    )


def _linear(known: Mapping[int, float], at: float) -> float:
    """Between the two nearest known ones; below the first it is the first, above the last it goes on growing."""
    points = sorted(known.items())
    if len(points) == 1 or at <= points[0][0]:
        return points[0][1]
    above = next((index for index, (length, _) in enumerate(points) if length >= at), len(points) - 1)
    (short, low), (long, high) = points[above - 1], points[above]
    return low + (at - short) / (long - short) * (high - low)
