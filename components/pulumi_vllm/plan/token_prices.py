"""What tokens cost for a mix of prompts and answers, from measured rates, when the machine is not always busy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pulumi_vllm.plan import pricing, spot_pricing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pulumi_vllm.plan.planner import Plan

UTILIZATIONS = (1.0, 0.6, 0.3, 0.1)
"""Fractions of the time that a machine is busy, for which `plan` prints a price."""


@dataclass(frozen=True, slots=True)
class Mix:
    """Tokens of a request's prompt and of its answer, and requests per second if they are known."""

    input: int = pricing.MEASURED_INPUT
    output: int = pricing.MEASURED_OUTPUT
    requests_per_s: float | None = None

    @property
    def is_measured(self) -> bool:
        """Whether these are the tokens of the measured load."""
        return (self.input, self.output) == (pricing.MEASURED_INPUT, pricing.MEASURED_OUTPUT)


MEASURED = Mix()
"""The load of every measured rate."""


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """A mix on one machine. `prompt_s` and `answer_s` are seconds of a busy machine that one request takes.

    `streams` are the requests at once: those of the stack, or fewer if the KV cache holds fewer of this length.
    `levels` are the measured numbers of streams from which their rate is derived.
    `extrapolated` is true for a prompt longer than any that was measured.
    """

    mix: Mix
    streams: int
    levels: tuple[int, ...]
    prompt_s: float
    answer_s: float
    usd_per_hour: float
    extrapolated: bool

    @property
    def requests_per_s(self) -> float:
        """Requests that the machine answers when it is always busy."""
        return 1 / (self.prompt_s + self.answer_s)

    @property
    def input_share(self) -> float:
        """Fraction of the machine's time, and so of its price, that the prompts take."""
        return self.prompt_s * self.requests_per_s

    @property
    def utilization(self) -> float | None:
        """Fraction of one machine's time that the requests per second of the mix take. It may be above 1."""
        wanted = self.mix.requests_per_s
        return None if wanted is None else wanted / self.requests_per_s

    @property
    def machines(self) -> int | None:
        """Machines that those requests per second need."""
        return None if self.utilization is None else max(1, math.ceil(self.utilization))

    @property
    def used(self) -> float | None:
        """Fraction of the time that those machines are busy with those requests."""
        if self.utilization is None or self.machines is None:
            return None
        return self.utilization / self.machines

    def usd_per_million_output(self, utilization: float = 1.0) -> float:
        """Price of the whole machine over the output tokens, USD per million."""
        tokens_per_s = self.mix.output * self.requests_per_s * utilization
        return self.usd_per_hour / 3600 / tokens_per_s * 1e6

    @property
    def usd_per_million_apart(self) -> tuple[float, float]:
        """USD per million input and output tokens of a busy machine if each pays for the time that it takes."""
        second = self.usd_per_hour / 3600 * 1e6
        return second * self.prompt_s / self.mix.input, second * self.answer_s / self.mix.output

    def sentences(self) -> tuple[str, ...]:
        """The price with its load, its inputs and what it leaves out."""
        load = f"{self.mix.input:,} tokens in and {self.mix.output:,} out, {self.streams} streams"
        each = ", ".join(
            f"${self.usd_per_million_output(part):.2f} busy {'always' if part == 1 else f'{part:.0%} of the time'}"
            for part in UTILIZATIONS
        )
        apart = self.usd_per_million_apart
        share = (
            f"The prompts take {self.input_share:.0%} of the time: of the price when always busy, ${apart[0]:.3f} per "
            f"million input tokens and ${apart[1]:.3f} per million output tokens."
        )
        lines = [
            f"{load}: at most {self.requests_per_s:,.2f} requests/s. Per million output tokens {each}.",
            share,
        ]
        if (used := self.used) is not None:
            count = "this machine" if self.machines == 1 else f"{self.machines} such machines"
            lines.append(
                f"{self.mix.requests_per_s:g} requests/s keep {count} busy {used:.0%} of the time: "
                f"${self.usd_per_million_output(used):.2f} per million output tokens."
            )
        if self.extrapolated:
            lines.append("No prompt of this length was measured, and longer ones cost more per token.")
        return tuple(lines)

    def summary(self) -> dict[str, Any]:
        """The same as JSON; prices in USD."""
        apart = self.usd_per_million_apart
        used = self.used
        return {
            "input_tokens": self.mix.input,
            "output_tokens": self.mix.output,
            "streams": self.streams,
            "requests_per_s": round(self.requests_per_s, 3),
            "usd_per_million_output_tokens": {
                f"{part:.0%}": round(self.usd_per_million_output(part), 4) for part in UTILIZATIONS
            },
            "input_share": round(self.input_share, 3),
            "usd_per_million_input_tokens_apart": round(apart[0], 4),
            "usd_per_million_output_tokens_apart": round(apart[1], 4),
            "asked_requests_per_s": self.mix.requests_per_s,
            "machines": self.machines,
            "utilization": None if used is None else round(used, 3),
            "usd_per_million_output_tokens_asked": None
            if used is None
            else round(self.usd_per_million_output(used), 4),
            "extrapolated": self.extrapolated,
            "sentences": list(self.sentences()),
        }


def as_json(price: TokenPrice | str) -> dict[str, Any]:
    """A price of tokens, or why it is unknown, as the JSON of `plan` and `recommend` has it."""
    if isinstance(price, str):
        return {"token_price": None, "token_price_unknown": price}
    return {"token_price": price.summary(), "token_price_unknown": None}


def token_price(plan: Plan, mix: Mix, usd_per_serving_hour: float | None = None) -> TokenPrice | str:
    """The price of a mix on the plan's machine, or why it is unknown, as a clause.

    A request takes the machine for its prompt and for its answer. The prompt's part is measured: how fast many short
    prompts at once, and single long ones, were read. The answer's part is what a request of the measured load took
    beyond its prompt, per output token, at that many streams.

    Args:
        plan: a stack's plan.
        mix: the tokens of a request.
        usd_per_serving_hour: the machine's price, if it is not the plan's; starts of spot machines included.
    """
    run, usd = plan.measured_run, usd_per_serving_hour
    if usd is None:
        usd = spot_pricing.usd_per_serving_hour(plan.price.usd_per_hour, plan.price.billing, run)
    if usd is None:
        return "the machine's price is unknown"
    if run is None:
        return "no rate was measured with this model and precision on such a machine"
    if not plan.prompt_rates:
        return "it was not measured how fast such a machine reads prompts"
    streams = min(plan.deployment.sequences, plan.kv_tokens // (mix.input + mix.output))
    rate = pricing.rate(run, streams)
    if rate is None:
        held = f"the KV cache holds {streams} requests of {mix.input + mix.output:,} tokens"
        return f"{held}, and no rate was measured at so few"
    measured_prompt_s = prompt_seconds(plan.prompt_rates, pricing.MEASURED_INPUT)
    answer_s = pricing.MEASURED_OUTPUT / rate.tokens_per_s - measured_prompt_s
    if answer_s <= 0:
        return f"the rates of prompts and of answers at {streams} streams contradict each other"
    return TokenPrice(
        mix=mix,
        streams=rate.streams,
        levels=rate.levels,
        prompt_s=prompt_seconds(plan.prompt_rates, mix.input),
        answer_s=answer_s / pricing.MEASURED_OUTPUT * mix.output,
        usd_per_hour=usd,
        extrapolated=mix.input > max(plan.prompt_rates),
    )


def prompt_seconds(prompt_rates: Mapping[int, float], tokens: int) -> float:
    """Seconds of a busy machine for a prompt of so many tokens.

    Attention makes the time per token grow linearly with the prompt's length, so it is interpolated linearly between
    the two nearest measured lengths, and is the nearest one's beyond them.
    """
    rates = sorted(prompt_rates.items())
    below = [one for one in rates if one[0] <= tokens][-1:] or rates[:1]
    above = [one for one in rates if one[0] >= tokens][:1] or rates[-1:]
    (short, fast), (long, slow) = below[0], above[0]
    part = 0.0 if long == short else (tokens - short) / (long - short)
    return tokens * (1 / fast + part * (1 / slow - 1 / fast))
