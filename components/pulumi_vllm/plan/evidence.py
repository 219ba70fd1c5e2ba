"""Finds the measured run that says most about a launch, and describes how its arguments differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pulumi_vllm.plan import cuda_graphs
from pulumi_vllm.plan.engine_arguments import EngineArguments

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pulumi_vllm.plan.catalogue import Measured
    from pulumi_vllm.plan.engine_arguments import Flags


_NOT_COMPARED = (
    "served-model-name", "middleware", "allowed-media-domains", "scheduling-policy", "long-prefill-token-threshold",
)  # fmt: skip
"""Arguments that decide which requests are answered and in which order, not how an answer is computed."""

_USUAL = {"enforce-eager": False, "enable-chunked-prefill": True, "enable-prefix-caching": True}
"""What vLLM does by itself (0.26.0 and 0.33.0), so that a stack file that writes it changes nothing."""

_GIVEN = "kv-cache-memory-bytes"
"""What the planner adds to a launch that was measured. A stack file's own value is compared like any argument."""


_OF_NO_STEP = frozenset((
    "allow-credentials", "allowed-headers", "allowed-methods", "allowed-origins", "chat-template",
    "chat-template-content-format", "default-chat-template-kwargs", "disable-access-log-for-endpoints",
    "disable-fastapi-docs", "disable-log-stats", "disable-uvicorn-access-log", "enable-auto-tool-choice",
    "enable-force-include-usage", "enable-log-deltas", "enable-log-outputs", "enable-log-requests",
    "enable-prompt-tokens-details", "enable-request-id-headers", "enable-server-load-tracking",
    "exclude-tools-when-tool-choice-none", "generation-config", "gpu-memory-utilization", "kv-cache-memory-bytes",
    "language-model-only", "limit-mm-per-prompt", "load-format", "log-config-file", "max-cudagraph-capture-size",
    "max-log-len", "max-logprobs", "max-model-len", "max-num-queued-reqs", "max-num-queued-tokens", "max-num-seqs",
    "media-io-kwargs", "mm-processor-cache-gb", "model", "override-generation-config", "reasoning-parser",
    "response-role", "root-path", "safetensors-load-strategy", "seed", "shutdown-timeout", "sse-keep-alive-interval",
    "structured-outputs-config", "tool-call-parser", "uvicorn-log-level",
))  # fmt: skip
"""Arguments that decide what is served or logged, or how vLLM starts, not how long a step takes."""


@dataclass(frozen=True, slots=True)
class Match:
    """A measured run; `exact` if it had the same arguments, apart from those that no answer's speed depends on."""

    run: Measured
    exact: bool


def best_match(
    measured: Iterable[Measured],
    machine: tuple[str, str, str, str, int],
    arguments: EngineArguments,
    engines: int = 1,
) -> Match | None:
    """The run with the same arguments, or else the most similar one on the same machine.

    Of two equally similar runs, the one with more levels of concurrency wins, then the later one. A run that divided
    the model over the GPUs in another way says nothing about this launch. A run whose flags were not recorded used
    tensor parallelism over all GPUs.

    Args:
        measured: the runs of the catalogue.
        machine: model, precision, engine version, GPU and count.
        arguments: those of the launch.
        engines: engines that share the machine, each with these arguments.
    """
    wanted = _as_text(arguments.flags)

    def similarity(run: Measured) -> tuple[bool, bool, int, int, str]:
        levels = len(run.tokens_per_s)
        recorded = _recorded(run, wanted)
        return recorded == wanted, levels > 0, -_distance(recorded, wanted), levels, run.date

    candidates = (
        run
        for run in measured
        if (run.model, run.precision, run.engine, run.gpu, run.count) == machine
        and run.engines == engines
        and EngineArguments.of(run.flags or {"tensor-parallel-size": run.count}).parallel_sizes
        == arguments.parallel_sizes
    )
    best = max(candidates, key=similarity, default=None)
    return None if best is None else Match(best, exact=_recorded(best, wanted) == wanted)


def unmeasured(run: Measured, arguments: EngineArguments, own: Iterable[str]) -> tuple[str, ...]:
    """Those of a stack file's `own` flags that may make a step longer and that the run did not have.

    Its rates say nothing about a launch with them. The planner's own choices differ by what was measured.
    """
    wanted = _as_text(arguments.flags)
    recorded = _recorded(run, wanted)
    return tuple(
        _written(name, wanted[name])
        for name in own
        if name in wanted and name not in _OF_NO_STEP and recorded.get(name) != wanted[name]
    )


def difference(run: Measured, arguments: EngineArguments) -> str:
    """What the arguments of a measured run were instead, for a sentence about "other flags"."""
    if not run.flags:
        return "similar flags"
    wanted = _as_text(arguments.flags)
    recorded = _recorded(run, wanted)
    changed = [_written(name, value) for name, value in recorded.items() if wanted.get(name) != value]
    changed += [f"without {_written(name, True)}" for name in sorted(wanted.keys() - recorded.keys())]
    return f"other flags ({', '.join(changed)})"


def recorded_flags(words: Sequence[str]) -> dict[str, bool | str]:
    """The flags of a command line that was recorded elsewhere: in a stack's outputs, or by the GPU kit."""
    flags: dict[str, bool | str] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name = word.removeprefix("--")
            off = name.startswith("no-")
            name = name.removeprefix("no-")
            flags[name] = not off
        else:
            before = flags.get(name)
            flags[name] = f"{before} {word}" if isinstance(before, str) else word
    return flags


def _recorded(run: Measured, wanted: Flags) -> dict[str, bool | str]:
    """The flags of a run as they are compared with others."""
    return {name: value for name, value in _as_text(run.flags).items() if name != _GIVEN or name in wanted}


def _as_text(flags: Flags) -> dict[str, bool | str]:
    """Flags as evidence records them: switches as booleans, all other values as text. Some are never compared."""
    compared = {
        name: value
        for name, value in cuda_graphs.without_few_sizes(flags).items()
        if name not in _NOT_COMPARED and not (name in _USUAL and value is _USUAL[name])
    }
    return {name: value if isinstance(value, bool) else str(value) for name, value in compared.items()}


def _distance(one: Flags, other: Flags) -> int:
    """Number of arguments that only one of the two has; a changed value counts for both."""
    return len(set(one.items()) ^ set(other.items()))


def _written(name: str, value: object) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name} {value}"
