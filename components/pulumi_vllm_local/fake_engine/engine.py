"""The state of the fake engine: running requests, metrics, and draining."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import script
from .core import CoreDead

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .core import Core
    from .script import Token

_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_BLOCKS, _BLOCK_TOKENS = 1024, 16


class Aborted(Exception):  # noqa: N818 (the name in vLLM)
    """The server stopped before the response was complete."""


@dataclass
class Histogram:
    """A Prometheus histogram."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(_BUCKETS) + 1))
    total: float = 0.0

    def add(self, value: float) -> None:
        """Count one value."""
        index = next((i for i, bound in enumerate(_BUCKETS) if value <= bound), len(_BUCKETS))
        self.counts[index] += 1
        self.total += value

    def lines(self, name: str, label: str) -> list[str]:
        """Return the histogram in the Prometheus text format."""
        out, cumulative = [f"# TYPE {name} histogram"], 0
        for bound, count in zip((*_BUCKETS, "+Inf"), self.counts):  # noqa: B905 (Python 3.9 on hosts)
            cumulative += count
            out.append(f'{name}_bucket{{{label},le="{bound}"}} {cumulative}')
        return [*out, f"{name}_sum{{{label}}} {self.total}", f"{name}_count{{{label}}} {cumulative}"]


@dataclass
class Engine:
    """One served model: its settings, its running requests and its metrics."""

    names: tuple[str, ...]
    root: str
    context: int
    core: Core | None = None
    keys: tuple[str, ...] = ()
    images: bool = True
    tools: bool = True
    token_s: float = 0.025
    prompt_tokens_per_s: float = 0.0
    """Speed at which prompts are read, one after the other as in vLLM's chunked prefill; 0 reads them at once."""
    prompt_chunk: int = 2048
    """Tokens of a prompt that the core reads in one step."""
    places: int = 256
    priorities: bool = False
    version: str = "0"
    running: int = 0
    cached: int = 0
    """Tokens in the KV cache: of prompts as far as they are read, and of answers."""
    reading: list[int] = field(default_factory=list)
    """Requests whose prompt is read or waits for that, in their order."""
    placed: int = 0
    arrived: int = 0
    waiting: list[tuple[int, int]] = field(default_factory=list)
    """Requests that wait for a place: priority and order of arrival."""
    draining: bool = False
    aborted: bool = False
    dead: bool = False
    finished: dict[str, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    generated_tokens: int = 0
    first_token: Histogram = field(default_factory=Histogram)
    between_tokens: Histogram = field(default_factory=Histogram)
    whole: Histogram = field(default_factory=Histogram)
    started: float = field(default_factory=time.time)
    guard: threading.Condition = field(default_factory=threading.Condition)

    def generate(self, tokens: list[Token], prompt: int, reason: str) -> Iterator[Token]:
        """Yield the tokens at the speed of the engine and count them."""
        began, cached = time.monotonic(), 0
        try:
            for read in self._read(prompt):
                cached += read
            for index, token in enumerate(tokens):
                time.sleep(self.token_s)
                good = self._step()
                with self.guard:
                    self.generated_tokens += 1
                    self.cached += 1
                    cached += 1
                    if index == 0:
                        # As in vLLM, these come from the core: while it hangs, a new request changes none.
                        self.prompt_tokens += prompt
                        self.first_token.add(time.monotonic() - began)
                    else:
                        self.between_tokens.add(self.token_s)
                yield token if good else script.first_of_vocabulary(token)
        finally:
            with self.guard:
                self.cached -= cached
        with self.guard:
            self.whole.add(time.monotonic() - began)
        self._count("stop" if reason == "tool_calls" else reason)

    def _read(self, prompt: int) -> Iterator[int]:
        """Read a prompt in steps of the core, and yield the tokens of each. Meanwhile only the KV cache grows."""
        with self.guard:
            self.arrived += 1
            mine = self.arrived
            self.reading.append(mine)
        try:
            with self.guard:
                self.guard.wait_for(lambda: self.aborted or self.reading[0] == mine)
            for start in range(0, prompt, self.prompt_chunk):
                tokens = min(self.prompt_chunk, prompt - start)
                if self.prompt_tokens_per_s:
                    time.sleep(tokens / self.prompt_tokens_per_s)
                self._step()
                with self.guard:
                    self.cached += tokens
                yield tokens
        finally:
            with self.guard:
                self.reading.remove(mine)
                self.guard.notify_all()

    def _step(self) -> bool:
        """Wait for a step of the core. Whether its arithmetic is good."""
        good = True
        if self.core is not None:
            try:
                good = self.core.step()
            except CoreDead:
                self.dead = self.aborted = True
        if self.aborted:
            self._count("abort")
            raise Aborted
        return good

    def _count(self, reason: str) -> None:
        with self.guard:
            self.finished[reason] = self.finished.get(reason, 0) + 1

    @contextlib.contextmanager
    def place(self, priority: int) -> Iterator[None]:
        """Hold one of the places of running requests. As in vLLM, no running request gives its place to another."""
        with self.guard:
            self.arrived += 1
            mine = (priority if self.priorities else 0, self.arrived)
            self.waiting.append(mine)
            self.guard.wait_for(
                lambda: self.aborted or (self.placed < self.places and min(self.waiting) == mine)
            )
            self.waiting.remove(mine)
            if self.aborted:
                raise Aborted
            self.placed += 1
            self.guard.notify_all()  # several places may have become free at once
        try:
            yield
        finally:
            with self.guard:
                self.placed -= 1
                self.guard.notify_all()

    def start_request(self) -> bool:
        """Start a request; False if the server is draining."""
        with self.guard:
            if self.draining:
                return False
            self.running += 1
            return True

    def finish_request(self) -> None:
        """Finish a request."""
        with self.guard:
            self.running -= 1
            self.guard.notify_all()

    def drain(self, timeout: float) -> None:
        """Refuse new requests, wait for the running ones, then abort them."""
        with self.guard:
            self.draining = True
            self.guard.wait_for(lambda: self.running == 0, timeout)
            self.aborted = True
            self.guard.notify_all()
            self.guard.wait_for(lambda: self.running == 0, 2.0)

    def metrics(self) -> str:
        """Return the metrics under their names in vLLM."""
        label = f'engine="0",model_name="{self.names[0]}"'
        gauges: dict[str, Any] = {
            "vllm:num_requests_running": self.running - len(self.waiting),
            "vllm:num_requests_waiting": len(self.waiting),
            "vllm:kv_cache_usage_perc": min(1.0, self.cached / (_BLOCKS * _BLOCK_TOKENS)),
        }
        counters = {
            "vllm:prompt_tokens_total": self.prompt_tokens,
            "vllm:generation_tokens_total": self.generated_tokens,
            "vllm:num_preemptions_total": 0,
            "vllm:prefix_cache_queries_total": self.prompt_tokens,
            "vllm:prefix_cache_hits_total": 0,
        }
        lines = []
        with self.guard:
            for kind, values in (("gauge", gauges), ("counter", counters)):
                for name, value in values.items():
                    lines += [f"# TYPE {name} {kind}", f"{name}{{{label}}} {float(value)}"]
            lines.append("# TYPE vllm:request_success_total counter")
            for reason in ("stop", "length", "abort"):
                count = float(self.finished.get(reason, 0))
                lines.append(f'vllm:request_success_total{{{label},finished_reason="{reason}"}} {count}')
            lines += self.first_token.lines("vllm:time_to_first_token_seconds", label)
            lines += self.between_tokens.lines("vllm:inter_token_latency_seconds", label)
            lines += self.whole.lines("vllm:e2e_request_latency_seconds", label)
        cache = f'block_size="{_BLOCK_TOKENS}",cache_dtype="auto",num_gpu_blocks="{_BLOCKS}"'
        lines += [
            "# TYPE vllm:cache_config_info gauge",
            f"vllm:cache_config_info{{{cache},{label}}} 1.0",
        ]
        return "\n".join(lines) + "\n"
