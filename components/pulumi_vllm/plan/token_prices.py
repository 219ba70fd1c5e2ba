"""What tokens cost for a mix of prompts and answers, from measured rates, when the machine is not always busy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pulumi_vllm.plan import pricing, spot_pricing

if TYPE_CHECKING:
    from pulumi_vllm.plan.catalogue import Measured
    from pulumi_vllm.plan.planner import Plan
    from pulumi_vllm.plan.prompt_lengths import Lengths

UTILIZATIONS = (1.0, 0.6, 0.3, 0.1)
"""Fractions of the time that a machine is busy, for which `plan` prints a price."""
_FEWEST = 2
"""Measured lengths of prompts from which another one can be computed."""
_CROWDED, _ONE_PERCENT, _LEAST_PERCENT, _FEW = 0.9, 0.01, 0.0001, 0.1
_ROUNDING = 0.001
"""A load that was read from a rounded figure, such as 33.00 for 32.998, is no more than that figure."""
UNEVEN = "requests that come unevenly have to wait"
"""What it means that a machine is crowded."""


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

    @property
    def tokens(self) -> str:
        """The tokens for a sentence."""
        return f"{self.input:,} token{'' if self.input == 1 else 's'} in and {self.output:,} out"

    @property
    def load(self) -> str:
        """The requests per second for a sentence; "" if they are unknown."""
        wanted = self.requests_per_s
        if wanted is None:
            return ""
        return "1 request/s" if wanted == 1 else f"{f'{wanted:,.6f}'.rstrip('0').rstrip('.')} requests/s"


MEASURED = Mix()
"""The load of every measured rate."""


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """A mix on one machine. `prompt_s` and `answer_s` are seconds of a busy machine that one request takes.

    `streams` are the requests at once: those of the stack, or fewer if the KV cache holds fewer of this length.
    `levels` are the measured numbers of streams from which their rate is derived, and `most_measured` are the most
    requests per second among them. `source` says which measurements the price is from, as a sentence.
    `longest_prompt` was measured.
    """

    mix: Mix
    streams: int
    levels: tuple[int, ...]
    prompt_s: float
    answer_s: float
    usd_per_hour: float
    most_measured: float
    longest_prompt: int
    source: str

    @property
    def unmeasured(self) -> tuple[str, ...]:
        """What of the mix lies outside of all that was measured, as sentences."""
        found = []
        if self.mix.input > self.longest_prompt:
            found.append(f"No prompt above {self.longest_prompt:,} tokens was measured.")
        if self.requests_per_s > self.most_measured * (1 + _ROUNDING):
            found.append(
                f"No more than {_rate(self.most_measured)} were measured. What vLLM's API server needs for each "
                "request is not counted, so that so many short ones cost more than this."
            )
        return tuple(found)

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
        return None if self.utilization is None else max(1, math.ceil(self.utilization - _ROUNDING))

    @property
    def used(self) -> float | None:
        """Fraction of the time that those machines are busy with those requests."""
        if self.utilization is None or self.machines is None:
            return None
        return min(1.0, self.utilization / self.machines)

    @property
    def crowded(self) -> bool:
        """Whether those machines are busy for so long that requests which come unevenly have to wait."""
        return self.used is not None and self.used > _CROWDED

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
        streams = f"{self.streams:,} stream{'' if self.streams == 1 else 's'}"
        load = f"{self.mix.tokens}, {streams}"
        each = ", ".join(
            f"${self.usd_per_million_output(part):,.2f} busy {'always' if part == 1 else f'{part:.0%} of the time'}"
            for part in UTILIZATIONS
        )
        apart = self.usd_per_million_apart
        share = (
            f"The prompts take {percent(self.input_share)} of the time. Where each token pays for its own time on a "
            f"machine that is always busy, a million input tokens cost ${apart[0]:,.3f} and a million output tokens "
            f"${apart[1]:,.3f}. A prompt that begins as an earlier one did costs less; that is not counted."
        )
        lines = [f"{load}: at most {_rate(self.requests_per_s)}. Per million output tokens {each}.", share]
        if (used := self.used) is not None:
            count = "this machine is" if self.machines == 1 else f"{self.machines:,} such machines are"
            crowded = f", where {UNEVEN}" if self.crowded else ""
            lines.append(
                f"With {self.mix.load}, {count} busy {percent(used)} of the time{crowded}: "
                f"${self.usd_per_million_output(used):,.2f} per million output tokens."
            )
        return (*lines, self.source, *self.unmeasured)

    def summary(self) -> dict[str, Any]:
        """The same as JSON; prices in USD."""
        apart = self.usd_per_million_apart
        used = self.used
        return {
            "input_tokens": self.mix.input,
            "output_tokens": self.mix.output,
            "streams": self.streams,
            "requests_per_s": _digits(self.requests_per_s),
            "usd_per_million_output_tokens": {
                f"{part:.0%}": round(self.usd_per_million_output(part), 4) for part in UTILIZATIONS
            },
            "input_share": round(self.input_share, 3),
            "usd_per_million_input_tokens_apart": round(apart[0], 4),
            "usd_per_million_output_tokens_apart": round(apart[1], 4),
            "asked_requests_per_s": self.mix.requests_per_s,
            "machines": self.machines,
            "utilization": None if used is None else _digits(used),
            "usd_per_million_output_tokens_asked": None
            if used is None
            else round(self.usd_per_million_output(used), 4),
            "measured_streams": list(self.levels),
            "extrapolated": bool(self.unmeasured),
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
    beyond its prompt, per output token, at that many streams, and what a longer request adds to each step.

    Args:
        plan: a stack's plan.
        mix: the tokens of a request.
        usd_per_serving_hour: the machine's price, if it is not the plan's; starts of spot machines included.
    """
    run, usd, known = plan.measured_run, usd_per_serving_hour, plan.lengths
    if usd is None:
        usd = spot_pricing.usd_per_serving_hour(plan.price.usd_per_hour, plan.price.billing, run)
    if usd is None:
        return "the machine's price is unknown"
    if run is None or not run.tokens_per_s:
        divided = f" with {plan.engines} engines" if plan.engines > 1 else ""
        head = f"no rate of vLLM {plan.engine.version} was measured with this model and precision"
        return f"{head} on such a machine{divided}"
    if unknown := _unknown(plan, mix):
        return unknown
    streams, limit = _streams(plan, mix)
    rate = pricing.rate(run, streams)
    if rate is None:
        return f"{limit}, and no rate was measured at so few"
    seconds = busy_seconds(run, known, rate, mix)
    if seconds is None:
        return f"the rates of prompts and of answers at {streams} streams contradict each other"
    return TokenPrice(
        mix=mix,
        streams=rate.streams,
        levels=rate.levels,
        prompt_s=seconds[0],
        answer_s=seconds[1],
        usd_per_hour=usd,
        most_measured=max(run.tokens_per_s.values()) / pricing.MEASURED_OUTPUT,
        longest_prompt=known.longest,
        source=_source(plan, mix, rate),
    )


def _unknown(plan: Plan, mix: Mix) -> str | None:
    """Why the prompts and answers of a mix cannot be computed; None if they can."""
    known = plan.lengths
    if plan.without_rate:
        return f"no rate was measured with {', '.join(plan.without_rate)}"
    if not known.prompt_rates:
        return "it was not measured how fast such a machine reads prompts"
    if not mix.is_measured and min(len(known.prompt_rates), len(known.token_ms)) < _FEWEST:
        return "only prompts of one length were measured on such a machine"
    return None


def busy_seconds(run: Measured, known: Lengths, rate: pricing.Rate, mix: Mix) -> tuple[float, float] | None:
    """Seconds of a busy machine for a request's prompt and for its answer; None if the rates contradict each other."""
    # Few requests at once do not fill the steps that read prompts: each then takes what one alone takes.
    alone_ms = next((row["median_ttft_ms"] for row in run.load if row["concurrency"] == 1), 0.0)
    least_s = alone_ms / 1000 / rate.streams
    measured_s = pricing.MEASURED_OUTPUT / rate.tokens_per_s
    answer_s = measured_s - max(known.prompt_s(MEASURED.input), least_s)
    if answer_s <= 0:
        return None
    longer_s = known.longer_token_s(_held(mix), _held(MEASURED))
    prompt_s = max(known.prompt_s(mix.input), least_s)
    return prompt_s, (answer_s / pricing.MEASURED_OUTPUT + longer_s) * mix.output


def _streams(plan: Plan, mix: Mix) -> tuple[int, str]:
    """Requests at once, and what limits them. A request lies in the cache of one engine."""
    size, wanted = mix.input + mix.output, plan.deployment.sequences
    found = pricing.at_once(wanted, size, plan.kv_tokens // plan.engines, plan.engines)
    requests = f"{found} request{'' if found == 1 else 's'}"
    if found < wanted:
        return found, f"the KV cache holds {requests} of {size:,} tokens"
    return found, f"the stack serves {requests} at once"


def _held(mix: Mix) -> float:
    """Tokens of a request in the cache, on average while it is answered."""
    return mix.input + mix.output / 2


def _source(plan: Plan, mix: Mix, rate: pricing.Rate) -> str:
    """What the price is computed from, and how that differs from the stack."""
    levels = " and ".join(map(str, rate.levels))
    flags = "these flags" if plan.measured == "yes" else "other flags"
    parts = [f"Computed from the rate with {flags} at {levels} stream{'' if rate.levels == (1,) else 's'}"]
    if len(rate.levels) > 1:
        parts[0] += ", interpolated"
    of_prompts = [f"vLLM {version}" for version in plan.lengths.versions]
    of_prompts += ["one engine on its part of the GPUs"] if plan.lengths.one_engine else []
    if of_prompts and not mix.is_measured:
        parts.append(f"what long prompts take was partly measured with {' and '.join(of_prompts)}")
    return f"{'; '.join(parts)}."


def percent(part: float) -> str:
    """A part of the time for a sentence, also where it is small."""
    if part >= _ONE_PERCENT:
        return f"{part:.0%}"
    return f"{part * 100:.2g}%" if part >= _LEAST_PERCENT else "less than 0.01%"


def _rate(requests_per_s: float) -> str:
    """A number of requests per second for a sentence, also where there are few."""
    if requests_per_s >= _FEW:
        return f"{requests_per_s:,.2f} requests/s"
    return f"one request in {1 / requests_per_s:,.0f} s"


def _digits(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")
