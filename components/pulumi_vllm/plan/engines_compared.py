"""Says how the GPUs of a machine are divided among engines, why, and what another number of engines would give."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pulumi_vllm.plan import engine_count, engine_rates, engine_setup
from pulumi_vllm.plan.engine_arguments import PARALLEL_SIZES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pulumi_vllm.plan.planner import Plan
    from pulumi_vllm.plan.pricing import Rate


@dataclass(frozen=True, slots=True)
class Division:
    """One way to divide the machine: so many engines with so many GPUs each."""

    engines: int
    gpus: int
    kv_tokens: int
    """What the KV cache of each engine holds."""
    longest: int
    """Tokens of the longest request that the model and the cache of one engine take."""
    rate: Rate | None
    """Of all engines together; None where it was not measured."""

    @property
    def name(self) -> str:
        """For a sentence."""
        parallel = f"TP {self.gpus}" if self.gpus > 1 else "1 GPU"
        return f"{self.engines} engines ({parallel} each)" if self.engines > 1 else f"1 engine ({parallel})"

    def sentence(self, streams: int) -> str:
        """Rate, cache and longest prompt of this division."""
        if self.rate is None:
            speed = "not measured"
        else:
            measured = f"{self.rate.streams} stream{'' if self.rate.streams == 1 else 's'}"
            speed = f"{self.rate.tokens_per_s:,.0f} output tokens/s at {measured}"
            speed += ", the most measured" if self.rate.streams < streams else ""
            speed += ", interpolated" if len(self.rate.levels) > 1 else ""
        each = " in each cache" if self.engines > 1 else ""
        return f"{self.name}: {speed}, {self.kv_tokens:,} KV tokens{each}, one request up to {self.longest:,}"


def divisions(plan: Plan) -> tuple[Division, ...]:
    """Every way to divide the machine in which the model fits, fewest engines first."""
    count = plan.deployment.machine.count
    found = []
    for engines in engine_count.divisors(count):
        selection = replace(plan.selection, engines=engines)
        memory = engine_setup.memory_budget(selection, engine_setup.arguments(plan.deployment, selection))
        if memory is not None and memory.fits:
            longest = min(memory.longest_request, plan.model.maximum_context)
            own = engines == plan.engines and plan.measured == "yes"
            rate = plan.rate if own else plan.rates_by_engines.get(engines)
            found.append(Division(engines, count // engines, memory.kv_tokens, longest, rate))
    return tuple(found)


def sentences(plan: Plan) -> Iterator[str]:
    """Why the machine runs so many engines, and the other numbers in comparison. Nothing for one GPU.

    Nor is there a choice where the stack file's own flags divide the GPUs.
    """
    count, streams = plan.deployment.machine.count, plan.deployment.sequences
    if count == 0 and plan.engines > 1:
        yield f"{plan.engines} engines share the CPU, each with up to {_requests(plan.sequences_of_each)} at once."
    if count <= 1 or set(PARALLEL_SIZES) & set(plan.deployment.engine.flags):
        return
    known = divisions(plan)
    if plan.engines == 1 and len(known) == 1:
        return
    rates = ""
    if any(one.rate is not None for one in known):
        rates = " Rates: the best of such a machine with any flags"
        rates += ", or with these flags." if plan.measured == "yes" else "."
    yield f"{_reason(plan)}: {'; '.join(one.sentence(streams) for one in known)}.{rates}"
    if plan.engines > 1:
        yield (
            f"Each engine serves up to {_requests(plan.sequences_of_each)} at once and fails alone: its requests end, "
            "and the others' go on. The gateway keeps a conversation on one engine, and sends other requests to the "
            "least busy."
        )


def _requests(count: int) -> str:
    return f"{count} request{'' if count == 1 else 's'}"


def _reason(plan: Plan) -> str:
    streams, rates = plan.deployment.sequences, plan.rates_by_engines
    shape = f"{plan.engines} engine{'s' if plan.engines > 1 else ''} for {_requests(streams)} at once"
    if plan.deployment.machine.engines is not None:
        return f"{shape}, as the stack file says (server.machine.engines)"
    if plan.engines > 1:
        gain = rates[plan.engines].tokens_per_s / rates[1].tokens_per_s
        known = all(len(rates[engines].levels) == 1 for engines in (1, plan.engines))
        how = "measured" if known else "computed (from rates at other numbers of streams)"
        return f"{shape}, because that many were {how} to give {gain:.2f} times the rate of one"
    if rates.keys() > {1}:
        return f"{shape}, because several were not measured to be {engine_rates.LEAST_GAIN - 1:.0%} faster"
    return f"{shape}, because several were not measured on such a machine"
