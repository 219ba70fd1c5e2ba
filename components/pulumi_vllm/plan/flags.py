"""vLLM's arguments: how they are written, and what is known to fail or mislead, each with its evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pulumi_vllm.plan import flags_machine, flags_model

if TYPE_CHECKING:
    from pulumi_vllm.plan.catalogue import Engine, Model, Precision
    from pulumi_vllm.plan.memory import Budget


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the lint has to say: `severity` error or warning, `ignored` the stack file's reason."""

    rule: str
    severity: str
    sentence: str
    evidence: str
    ignored: str | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    """A command line under examination."""

    flags: Mapping[str, Any]
    environment: Mapping[str, str]
    model: Model
    precision: Precision
    engine: Engine
    gpu_count: int
    budget: Budget | None = None
    driver: str | None = None


def argv(flags: Mapping[str, Any]) -> tuple[str, ...]:
    """Flags as words: True is the bare flag, False its `--no-` form."""
    words: list[str] = []
    for name, value in flags.items():
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            words += [f"--{name}", str(value)]
    return tuple(words)


def lint(launch: Launch, ignore: Mapping[str, str]) -> tuple[Finding, ...]:
    """Everything known about this command line, errors first."""
    found = []
    for name, rule in RULES.items():
        for severity, sentence, evidence in rule(launch):
            found.append(Finding(name, severity, sentence, evidence, ignore.get(name)))
    return tuple(sorted(found, key=lambda finding: finding.severity))


Said = Iterator[tuple[str, str, str]]


def _dtype(launch: Launch) -> Said:
    """A type of the computation that vLLM does not have."""
    value = launch.flags.get("dtype")
    if value not in (None, "auto", "bfloat16", "float", "float16", "float32", "half"):
        sentence = f"--dtype {value}: vLLM's argument parser refuses it; leave it out, the weights say their own type"
        yield "error", sentence, "the parser of vLLM 0.33.0, run: invalid choice"


def _quantization(launch: Launch) -> Said:
    """A quantisation beside the one that the weights name."""
    value = launch.flags.get("quantization")
    if value == "int4":
        published = ", ".join(launch.model.precisions)
        sentence = (
            f"--quantization int4: vLLM has no such method; {launch.model.name} is published in {published}"
        )
        yield "error", sentence, "the configuration check of vLLM 0.33.0, run: Unknown quantization method"
    elif value is not None:
        sentence = f"--quantization {value}: not needed, the weights say how they are quantised; leave it out"
        yield "warning", sentence, "the configuration file of the published weights"


def _shutdown(launch: Launch) -> Said:
    """A stop that cuts running requests, or that outlasts the unit."""
    written = str(launch.flags.get("shutdown-timeout", 0))
    if not written.isdecimal():
        return  # the rule about values tells
    value = int(written)
    if value <= 0:
        sentence = "--shutdown-timeout 0 aborts running requests when the service stops; set it to 30"
        yield (
            "warning",
            sentence,
            "a stream in flight ended with an error chunk, run on the CPU build 0.32.0",
        )
    elif value > _LONGEST_STOP_S:
        sentence = (
            f"--shutdown-timeout {value}: the unit is killed after 45 s and vLLM needs up to 15 s beyond its own "
            "limit; use 30 or less, and drain_timeout_s for a longer drain at the gateway"
        )
        yield "error", sentence, "systemd killed the server at its limit, run on the CPU build 0.32.0"


_LONGEST_STOP_S = 30  # the unit's stop limit is 45 s, and vLLM needs 15 s beyond its own


def _format(launch: Launch) -> Said:
    """Weights in the Hugging Face format, which do not load."""
    # `auto` takes the consolidated files where they are; these never do.
    wrong = [
        f"--{name} {launch.flags[name]}"
        for name in ("load-format", "config-format")
        if launch.flags.get(name) in ("hf", "pt", "npcache")
    ]
    if "mistralai/" in launch.precision.repository and wrong:
        sentence = f"{' '.join(wrong)}: only the consolidated (Mistral) files load in vLLM; set it to mistral"
        yield "error", sentence, "vLLM issue 46497: No model architectures are specified"


def _api_key(launch: Launch) -> Said:
    """The engine's own key, which leaves routes open."""
    evidence = "full completion from /invocations without a key, run on the CPU build 0.32.0"
    remedy = "the gateway checks keys, name them under access.keys"
    if "api-key" in launch.flags:
        sentence = (
            "--api-key shows the key in the process list and leaves /invocations and /tokenize open; "
            + remedy
        )
        yield "error", sentence, evidence
    elif "VLLM_API_KEY" in launch.environment:
        yield "warning", f"VLLM_API_KEY leaves /invocations and /tokenize open; {remedy}", evidence


def _exposed(launch: Launch) -> Said:
    """An engine that others can reach past the gateway."""
    host, evidence = launch.flags.get("host"), "it has routes without a key, run on the CPU build 0.32.0"
    if host is None:
        sentence = "no --host: vLLM listens on every address; set it to 127.0.0.1, behind a gateway"
        yield "warning", sentence, evidence
    elif host not in ("127.0.0.1", "localhost", "::1"):
        sentence = f"--host {host}: the engine would be reachable past the gateway; leave it on 127.0.0.1"
        yield "error", sentence, evidence


def _speculative(launch: Launch) -> Said:
    """Drafts, which were slower where they were measured."""
    if "speculative-config" in launch.flags:
        sentence = "speculative decoding was slower where it was measured; try it before you keep it"
        yield (
            "warning",
            sentence,
            "published test of Mistral Small 4 on another GPU: 35 tok/s with, 69 without",
        )


RULES: Mapping[str, Callable[[Launch], Said]] = {
    "unknown-flag": flags_model.unknown,
    "value": flags_model.value,
    "below-one": flags_model.below_one,
    "batched-tokens": flags_model.batch,
    "deprecated": flags_model.deprecated,
    "conflict": flags_model.conflict,
    "repository": flags_model.repository,
    "context": flags_machine.context,
    "max-num-seqs": flags_machine.sequences,
    "utilization": flags_machine.utilization,
    "uncounted": flags_machine.uncounted,
    "driver": flags_machine.driver,
    "reasoning-effort": flags_model.reasoning,
    "image-limit": flags_model.image_limit,
    "prefix-caching": flags_model.prefix_caching,
    "environment": flags_model.environment,
    "dtype": _dtype,
    "kv-cache-dtype": flags_machine.kv_cache,
    "attention-backend": flags_machine.attention,
    "quantization": _quantization,
    "moe-backend": flags_machine.experts,
    "shutdown-timeout": _shutdown,
    "mistral-common": flags_model.mistral_common,
    "tensor-parallel": flags_machine.parallel,
    "idle-gpus": flags_machine.idle,
    "load-format": _format,
    "api-key": _api_key,
    "host": _exposed,
    "speculative": _speculative,
    "nvfp4-on-hopper": flags_machine.nvfp4,
}
"""Rule name → rule. The name is what `engine.ignore` takes."""
