"""vLLM's arguments: how they are written, and what is known to fail or mislead, each with its evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import flags_model

if TYPE_CHECKING:
    from .catalogue import Engine, Model, Precision

_RUN = "run on 2026-11-23 with vLLM 0.26.0 on H200"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the lint has to say: `severity` error or warning, `waived` the stack file's reason."""

    rule: str
    severity: str
    sentence: str
    evidence: str
    waived: str | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    """A command line under examination."""

    flags: Mapping[str, Any]
    environment: Mapping[str, str]
    model: Model
    precision: Precision
    engine: Engine
    gpu_count: int
    kv_tokens: int | None = None
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


def lint(launch: Launch, waive: Mapping[str, str]) -> tuple[Finding, ...]:
    """Everything known about this command line, errors first."""
    found = []
    for name, rule in RULES.items():
        for severity, sentence, evidence in rule(launch):
            found.append(Finding(name, severity, sentence, evidence, waive.get(name)))
    return tuple(sorted(found, key=lambda finding: finding.severity))


Said = Iterator[tuple[str, str, str]]


def _dtype(launch: Launch) -> Said:
    value = launch.flags.get("dtype")
    if value not in (None, "auto", "bfloat16", "float", "float16", "float32", "half"):
        yield (
            "error",
            (
                f"--dtype {value}: vLLM's argument parser refuses it; leave it out, the weights say their "
                "own type"
            ),
            "the parser of vLLM 0.33.0, run: invalid choice",
        )


def _kv_cache(launch: Launch) -> Said:
    value = str(launch.flags.get("kv-cache-dtype", "auto"))
    mla = launch.model.dimensions.attention["kind"] == "mla"
    if not (value.startswith("fp8") and mla and launch.engine.runs_on == "cuda"):
        return
    if launch.flags.get("attention-backend") == "TRITON_MLA":
        yield (
            "error",
            (
                f"--kv-cache-dtype {value} with TRITON_MLA: the start stands in the capture of the "
                "decode graphs; "
                "leave the KV cache at 16 bit"
            ),
            f"not ready after 260 s, {_RUN}",
        )
    else:
        yield (
            "error",
            (
                f"--kv-cache-dtype {value}: vLLM picks FLASHMLA, which dies for this model after "
                "about 100 s; "
                "leave the KV cache at 16 bit"
            ),
            f"'Only head_size_k == 576 is supported', {_RUN}",
        )


def _quantization(launch: Launch) -> Said:
    value = launch.flags.get("quantization")
    if value == "int4":
        yield (
            "error",
            (
                "--quantization int4: vLLM has no such method; the 4-bit weights of this model are "
                "precision nvfp4"
            ),
            "the configuration check of vLLM 0.33.0, run: Unknown quantization method",
        )
    elif value is not None:
        yield (
            "warning",
            f"--quantization {value}: not needed, the weights say how they are quantised; leave it out",
            "params.json of the published weights",
        )


def _moe(launch: Launch) -> Said:
    value = launch.flags.get("moe-backend", "auto")
    if launch.precision.name != "fp8" or launch.engine.runs_on != "cuda":
        if value == "humming":
            yield (
                "error",
                "--moe-backend humming: vLLM 0.26.0 refuses it on this GPU; leave it out",
                f"'kernel does not support current device cuda', {_RUN}",
            )
        return
    if value in ("auto", "flashinfer_cutlass"):
        yield (
            "warning",
            (
                "the default MoE back end compiles its kernels for ten minutes at the first start "
                "and looks like a "
                "hang; set moe-backend: triton"
            ),
            f"FLASHINFER_CUTLASS was not ready after 565 s on 16 cores, {_RUN}",
        )
    elif value == "cutlass":
        yield (
            "error",
            "--moe-backend cutlass: vLLM refuses it for these weights; set moe-backend: triton",
            f"'vLLM CUTLASS FP8 MoE backend is disabled for this configuration', {_RUN}",
        )


def _shutdown(launch: Launch) -> Said:
    written = str(launch.flags.get("shutdown-timeout", 0))
    if not written.isdecimal():
        return  # the rule about values tells
    value = int(written)
    if value <= 0:
        yield (
            "warning",
            "--shutdown-timeout 0 aborts running requests when the service stops; set it to 30",
            "a stream in flight ended with an error chunk, run on the CPU build 0.32.0",
        )
    elif value > 30:  # noqa: PLR2004 - the unit's stop limit is 45 s, and vLLM needs 15 s beyond its own
        yield (
            "error",
            (
                f"--shutdown-timeout {value}: the unit is killed after 45 s and vLLM needs up to 15 s "
                "beyond its own "
                "limit; use 30 or less, and drain_timeout_s for a longer drain at the door"
            ),
            "systemd killed the server at its limit, run on the CPU build 0.32.0",
        )


def _heads(launch: Launch) -> Said:
    written, heads = str(launch.flags.get("tensor-parallel-size", 1)), launch.model.dimensions.heads
    if not written.isdecimal():
        return  # the rule about values tells
    parallel = int(written)
    if parallel < 1 or heads % parallel:
        yield (
            "error",
            (
                f"--tensor-parallel-size {parallel} does not divide the {heads} attention heads; use a "
                "power of two"
            ),
            "vLLM: total number of attention heads must be divisible by tensor parallel size",
        )
    elif launch.engine.runs_on == "cuda" and parallel > launch.gpu_count:
        yield (
            "error",
            f"--tensor-parallel-size {parallel} needs as many GPUs, the machine has {launch.gpu_count}",
            "one rank per GPU",
        )


def _format(launch: Launch) -> Said:
    # `auto` takes the consolidated files where they are; these never do.
    wrong = [
        f"--{name} {launch.flags[name]}"
        for name in ("load-format", "config-format")
        if launch.flags.get(name) in ("hf", "pt", "npcache")
    ]
    if "mistralai/" in launch.precision.repository and wrong:
        yield (
            "error",
            f"{wrong[0]}: only the consolidated (Mistral) files load in vLLM; set it to mistral",
            "vLLM issue 46497: No model architectures are specified",
        )


def _api_key(launch: Launch) -> Said:
    if "api-key" in launch.flags:
        yield (
            "error",
            (
                "--api-key shows the key in the process list and leaves /invocations and /tokenize "
                "open; the door "
                "checks keys, name them under access.keys"
            ),
            "full completion from /invocations without a key, run on the CPU build 0.32.0",
        )


def _exposed(launch: Launch) -> Said:
    if launch.flags.get("host", "127.0.0.1") not in ("127.0.0.1", "localhost"):
        yield (
            "error",
            (
                f"--host {launch.flags['host']}: the engine would be reachable past the door; leave it on "
                "127.0.0.1"
            ),
            "the engine has routes without a key",
        )


def _speculative(launch: Launch) -> Said:
    if "speculative-config" in launch.flags:
        yield (
            "warning",
            "speculative decoding was slower for this model where it was measured; try it before you keep it",
            "published test on another GPU: 35 tok/s with, 69 without",
        )


def _nvfp4(launch: Launch) -> Said:
    if launch.precision.name == "nvfp4":
        yield (
            "warning",
            (
                "NVFP4 on Hopper saves memory, not time, and the quality of its answers is "
                "unverified; check it on "
                "your own prompts"
            ),
            f"12 % slower than FP8 at 128 streams, random weights, {_RUN}",
        )


RULES: Mapping[str, Callable[[Launch], Said]] = {
    "unknown-flag": flags_model.unknown,
    "value": flags_model.value,
    "deprecated": flags_model.deprecated,
    "conflict": flags_model.conflict,
    "repository": flags_model.repository,
    "context": flags_model.context,
    "max-num-seqs": flags_model.sequences,
    "driver": flags_model.driver,
    "reasoning-effort": flags_model.reasoning,
    "prefix-caching": flags_model.prefix_caching,
    "environment": flags_model.environment,
    "dtype": _dtype,
    "kv-cache-dtype": _kv_cache,
    "quantization": _quantization,
    "moe-backend": _moe,
    "shutdown-timeout": _shutdown,
    "mistral-common": flags_model.mistral_common,
    "tensor-parallel": _heads,
    "load-format": _format,
    "api-key": _api_key,
    "host": _exposed,
    "speculative": _speculative,
    "nvfp4-on-hopper": _nvfp4,
}
"""Rule name → rule. The name is what `engine.waive` takes."""
