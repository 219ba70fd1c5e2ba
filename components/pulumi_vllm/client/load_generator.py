"""Load generator: random prompts at several concurrency levels, measured as `vllm bench serve` measures them.

Each stream sends its next request as soon as the last one is answered. TTFT is the time from the request to the first
token. TPOT is the rest of the answer's time divided by its other tokens. Throughput is the tokens of all answers
divided by the time of the whole level.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pulumi_vllm.client.errors import AnswerInterrupted, ClientError
from pulumi_vllm.client.gateway_session import GatewaySession, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pulumi_vllm.client.endpoint import Endpoint

FIRST_ID = 1000
"""Smallest token id in a prompt. Mistral's tokenizer reserves the 1,000 ids below for control tokens."""
_RESERVED_LAST_IDS = 1000  # other tokenizers reserve ids at the end
_SMALLEST_VOCABULARY = 4096  # of the catalogue's models; used where the catalogue does not know the model
_REQUESTS_PER_STREAM, _LEAST_REQUESTS = 3, 4  # as in lab/gpu/measure.py
_WARM_UP_STREAMS, WARM_UP_TOKENS = 64, 16  # as in lab/gpu/measure.py


@dataclass(frozen=True)
class Load:
    """A load: concurrency levels, prompt and answer lengths. `vocabulary` bounds the random token ids."""

    levels: tuple[int, ...] = (1, 32, 128, 256)
    input_tokens: int = 512
    output_tokens: int = 256
    vocabulary: int | None = None
    seed: int = 0

    def requests(self, streams: int) -> int:
        """Return the number of requests at a level."""
        return max(_REQUESTS_PER_STREAM * streams, _LEAST_REQUESTS)

    @property
    def all_requests(self) -> int:
        """Requests of the warm-up and all levels together."""
        return self.warm_up_streams + sum(map(self.requests, self.levels))

    @property
    def warm_up_streams(self) -> int:
        """Streams of the warm-up, one request each: an engine compiles at the first use of a batch size."""
        return min(_WARM_UP_STREAMS, max(self.levels))

    def bodies(self, model: str, number: int, streams: int, tokens: int) -> list[bytes]:
        """Return request bodies with new prompts. A repeated prompt would be answered from the prefix cache."""
        chance = random.Random(f"{self.seed}:{streams}:{tokens}")  # noqa: S311 - prompts, not secrets
        ids = range(FIRST_ID, (self.vocabulary or _SMALLEST_VOCABULARY) - _RESERVED_LAST_IDS)
        return [
            encode(
                {
                    "model": model,
                    "prompt": chance.choices(ids, k=self.input_tokens),
                    "max_tokens": tokens,
                    "ignore_eos": True,
                    "stream": True,
                    "stream_options": {"include_usage": True},
                }
            )
            for _ in range(number)
        ]


@dataclass
class Sample:
    """Timing of one answer, in seconds."""

    ttft: float
    latency: float
    tokens: int
    prompt_tokens: int
    gaps: list[float]

    @property
    def tpot(self) -> float | None:
        """Seconds per token after the first."""
        return (self.latency - self.ttft) / (self.tokens - 1) if self.tokens > 1 else None


@dataclass
class Level:
    """Progress and results of one concurrency level. `report_progress` is called every `report_every_s` seconds."""

    streams: int
    requests: int
    report_progress: Callable[[Level], None]
    report_every_s: float = 5.0
    tokens: int = 0
    began: float = 0.0
    seconds: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    error: ClientError | None = None

    @property
    def rate(self) -> float:
        """Output tokens per second so far."""
        return self.tokens / max(time.perf_counter() - self.began, 1e-9)


async def run(endpoint: Endpoint, bodies: Sequence[bytes], level: Level) -> None:
    """Run one level. An error that stopped it is stored in its `error`."""
    try:
        async with GatewaySession(endpoint) as gateway:
            await gateway.connect(
                level.streams
            )  # before the clock starts: real clients keep their connections
            await _run_streams(gateway, iter(bodies), level)
    except* ClientError as group:
        level.error = _first_error(group)


async def _run_streams(gateway: GatewaySession, bodies: Iterator[bytes], level: Level) -> None:
    level.began = time.perf_counter()
    progress = asyncio.create_task(_report_progress(level))
    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(level.streams):
                tasks.create_task(_run_stream(gateway, bodies, level))
    finally:
        level.seconds = time.perf_counter() - level.began
        progress.cancel()


async def _run_stream(gateway: GatewaySession, bodies: Iterator[bytes], level: Level) -> None:
    for body in bodies:
        level.samples.append(await measure_completion(gateway, body, level))


async def measure_completion(gateway: GatewaySession, body: bytes, level: Level | None = None) -> Sample:
    """Request and time one streamed completion."""
    began = last = time.perf_counter()
    ttft, gaps, usage = None, list[float](), dict[str, int]()
    async for event in gateway.events("/completions", body):
        if event.get("choices"):
            now = time.perf_counter()
            if ttft is None:
                ttft = now - began
            else:
                gaps.append(now - last)
            last = now
            if level:
                level.tokens += 1
        usage = event.get("usage") or usage
    if ttft is None:
        raise AnswerInterrupted(f"{gateway.endpoint.url}/completions: the answer has no token")
    # A server may send several tokens in one event, so its own count is the right one.
    tokens = usage.get("completion_tokens", len(gaps) + 1)
    return Sample(ttft, last - began, tokens, usage.get("prompt_tokens", 0), gaps)


async def _report_progress(level: Level) -> None:
    while True:
        await asyncio.sleep(level.report_every_s)
        level.report_progress(level)


def _first_error(group: BaseExceptionGroup[ClientError]) -> ClientError:
    one = group.exceptions[0]
    return _first_error(one) if isinstance(one, BaseExceptionGroup) else one


def row(level: Level, load: Load) -> dict[str, Any]:
    """Return a level's figures under the names that `vllm bench serve` uses."""
    samples, seconds = level.samples, level.seconds
    head: dict[str, Any] = {
        "concurrency": level.streams,
        "prompts": level.requests,
        "input_tokens": load.input_tokens,
        "output_tokens": load.output_tokens,
        "completed": len(samples),
        "failed": 0 if level.error is None else 1,
    }
    if level.error is not None:
        return head | {"error": str(level.error)}
    tokens, read = (sum(one.tokens for one in samples), sum(one.prompt_tokens for one in samples))
    figures = {
        "duration": seconds,
        "request_throughput": len(samples) / seconds,
        "output_throughput": tokens / seconds,
        "total_token_throughput": (tokens + read) / seconds,
        **_spread("ttft", [one.ttft for one in samples]),
        **_spread("tpot", [one.tpot for one in samples if one.tpot is not None]),
        **_spread("itl", [gap for one in samples for gap in one.gaps]),
    }
    return head | {name: round(value, 3) for name, value in figures.items()}


def _spread(name: str, seconds: Sequence[float]) -> dict[str, float]:
    """Return mean, median and 99th percentile, in milliseconds."""
    values = [value * 1000 for value in seconds] or [0.0]
    return {
        f"mean_{name}_ms": statistics.fmean(values),
        f"median_{name}_ms": statistics.median(values),
        f"p99_{name}_ms": percentile(values, 99),
    }


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile, linearly interpolated as numpy does."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
