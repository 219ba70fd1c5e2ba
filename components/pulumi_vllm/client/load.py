"""A load of random prompts at several concurrency levels, measured as `vllm bench serve` measures it.

Each stream asks again as soon as it is answered. TTFT: request sent to first token. TPOT: the rest of the answer
over its other tokens. Throughput: the tokens of all answers over the time of the whole level.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pulumi_vllm.client.errors import ClientError, Cut
from pulumi_vllm.client.http import Connection, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pulumi_vllm.client.endpoint import Endpoint

FIRST_ID = 1000
"""Smallest token id in a prompt: Mistral's tokenizer keeps the 1,000 below for control tokens."""
_LAST_IDS = 1000  # other tokenizers keep theirs at the end
_SMALLEST_VOCABULARY = 4096  # of a model that the catalogue does not know: that of the smallest it does
_PER_STREAM, _AT_LEAST = 3, 4  # requests, as in lab/gpu/measure.py
_WARM_UP_STREAMS, WARM_UP_TOKENS = 64, 16  # the same


@dataclass(frozen=True)
class Load:
    """What is asked: prompts of so many tokens, answers of so many; `vocabulary` bounds the random ids."""

    levels: tuple[int, ...] = (1, 32, 128, 256)
    input_tokens: int = 512
    output_tokens: int = 256
    vocabulary: int | None = None
    seed: int = 0

    def requests(self, streams: int) -> int:
        """How many requests a level makes."""
        return max(_PER_STREAM * streams, _AT_LEAST)

    @property
    def all_requests(self) -> int:
        """Of the warm-up and all levels."""
        return self.warm_up_streams + sum(map(self.requests, self.levels))

    @property
    def warm_up_streams(self) -> int:
        """Streams of the warm-up, one request each: first uses of a batch size compile or capture something."""
        return min(_WARM_UP_STREAMS, max(self.levels))

    def bodies(self, model: str, number: int, streams: int, tokens: int) -> list[bytes]:
        """Requests with prompts nobody has seen: an equal one would be answered from the prefix cache."""
        chance = random.Random(f"{self.seed}:{streams}:{tokens}")  # noqa: S311 - prompts, not secrets
        ids = range(FIRST_ID, (self.vocabulary or _SMALLEST_VOCABULARY) - _LAST_IDS)
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
    """One answer; seconds."""

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
    """One concurrency level as it goes; `told` is called with it every few seconds."""

    streams: int
    requests: int
    told: Callable[[Level], None]
    every_s: float = 5.0
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
    """Run one level; what stopped it, if something did, is in its `error`."""
    connections = [Connection(endpoint) for _ in range(level.streams)]
    try:
        await _connect(connections)
        await _all(connections, iter(bodies), level)
    except* ClientError as group:
        level.error = _first(group)
    finally:
        for connection in connections:
            connection.close()


async def _connect(connections: Sequence[Connection]) -> None:
    """Before the clock runs: a client keeps its connections."""
    async with asyncio.TaskGroup() as tasks:
        for connection in connections:
            tasks.create_task(connection.open())


async def _all(connections: Sequence[Connection], bodies: Iterator[bytes], level: Level) -> None:
    level.began = time.perf_counter()
    progress = asyncio.create_task(_progress(level))
    try:
        async with asyncio.TaskGroup() as tasks:
            for connection in connections:
                tasks.create_task(_stream(connection, bodies, level))
    finally:
        level.seconds = time.perf_counter() - level.began
        progress.cancel()


async def _stream(connection: Connection, bodies: Iterator[bytes], level: Level) -> None:
    for body in bodies:
        await connection.open()
        level.samples.append(await one(connection, body, level))


async def one(connection: Connection, body: bytes, level: Level | None = None) -> Sample:
    """One streamed completion."""
    began = last = time.perf_counter()
    ttft, gaps, usage = None, list[float](), dict[str, int]()
    async for event in connection.events("/completions", body):
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
        raise Cut(f"{connection.endpoint.url}/completions: an answer without a token")
    # A server may put several tokens into one event, so its own count is the true one.
    tokens = usage.get("completion_tokens", len(gaps) + 1)
    return Sample(ttft, last - began, tokens, usage.get("prompt_tokens", 0), gaps)


async def _progress(level: Level) -> None:
    while True:
        await asyncio.sleep(level.every_s)
        level.told(level)


def _first(group: BaseExceptionGroup[ClientError]) -> ClientError:
    one = group.exceptions[0]
    return _first(one) if isinstance(one, BaseExceptionGroup) else one


def row(level: Level, load: Load) -> dict[str, Any]:
    """What a level gave, under the names of `vllm bench serve`."""
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
    """Mean, median and 99th percentile, in ms."""
    values = [value * 1000 for value in seconds] or [0.0]
    return {
        f"mean_{name}_ms": statistics.fmean(values),
        f"median_{name}_ms": statistics.median(values),
        f"p99_{name}_ms": percentile(values, 99),
    }


def percentile(values: Sequence[float], percent: float) -> float:
    """Between the two nearest values, in a straight line, as numpy does."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
