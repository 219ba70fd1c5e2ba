"""Rules about arguments that vLLM's configuration refuses together, or that need another one.

Each line of the tables is a check of `validate_parsed_serve_args`, `EngineArgs` or `vllm.config` of 0.26.0 and 0.33.0.
`lab/engine/flag_sets.py` holds a set for each, which a test runs through the real parser and configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pulumi_vllm.plan.engine_arguments import CAPTURE_SIZES, json_object, number
from pulumi_vllm.plan.lint.findings import error
from pulumi_vllm.plan.lint.kernels import release
from pulumi_vllm.plan.memory import accepts_images

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pulumi_vllm.plan.engine_arguments import Flags
    from pulumi_vllm.plan.launch import Launch
    from pulumi_vllm.plan.lint.findings import Problems

_NEEDS: Final = {
    "enable-log-outputs": "enable-log-requests",
    "numa-bind-nodes": "numa-bind",
    "numa-bind-cpus": "numa-bind",
    "collect-detailed-traces": "otlp-traces-endpoint",
    "enable-elastic-ep": "enable-eplb",
    "enable-eplb": "enable-expert-parallel",
    "spec-method": "spec-tokens",
}
"""Argument → another that it needs."""

_NEEDS_VALUE: Final = {
    "mm-shm-cache-max-object-size-mb": ("mm-processor-cache-type", "shm"),
    "mm-encoder-fp8-scale-path": ("mm-encoder-attn-dtype", "fp8"),
    "mm-encoder-fp8-scale-save-path": ("mm-encoder-attn-dtype", "fp8"),
    "enable-mamba-cache-stochastic-rounding": ("mamba-ssm-cache-dtype", "float16"),
    "ray-workers-use-nsight": ("distributed-executor-backend", "ray"),
}
"""Argument → another argument and the value that it needs."""

_NOT_TOGETHER: Final = (
    ("enable-per-request-metrics", "disable-log-stats"),
    ("mm-encoder-fp8-scale-path", "mm-encoder-fp8-scale-save-path"),
)

_TWICE: Final = (
    ("attention-backend", "attention-config", "backend"),
    ("enable-flashinfer-autotune", "kernel-config", "enable_flashinfer_autotune"),
    ("cudagraph-capture-sizes", "compilation-config", "cudagraph_capture_sizes"),
    ("max-cudagraph-capture-size", "compilation-config", "max_cudagraph_capture_size"),
    ("spec-method", "speculative-config", "method"),
    ("spec-tokens", "speculative-config", "num_speculative_tokens"),
    ("spec-model", "speculative-config", "model"),
)
"""Argument, and the key of JSON that sets the same."""

_NOT_INSTALLED: Final = {
    ("distributed-executor-backend", "ray"): "Ray",
    ("kv-offloading-backend", "lmcache"): "LMCache",
    ("model-impl", "terratorch"): "TerraTorch",
}
"""Argument and value → the package that they need. No lock of the engines holds it."""


def conflicting_flags(launch: Launch) -> Problems:
    """Arguments that do not work together, or that need another one."""
    for message in (
        *_by_table(launch.arguments.flags),
        *_unsupported(launch.arguments.flags),
        *_by_size(launch),
    ):
        yield error(message, "the configuration of vLLM 0.26.0 and 0.33.0, run")
    flags = launch.arguments.flags
    if flags.get("enable-auto-tool-choice") and "tool-call-parser" not in flags:
        yield error(
            "--enable-auto-tool-choice without --tool-call-parser is refused; add tool-call-parser: "
            f"{launch.model.flags.get('tool-call-parser', 'and its name')}",
            "the argument check of vLLM 0.33.0, run",
        )
    forked = launch.environment.get("VLLM_WORKER_MULTIPROC_METHOD") == "fork"
    if forked and flags.get("mm-tensor-ipc") == "torch_shm":
        yield error(
            "--mm-tensor-ipc torch_shm is refused with forked worker processes, which this launch uses; leave it out",
            "VllmConfig of 0.26.0",
        )


def _set(flags: Flags, name: str) -> bool:
    return flags.get(name) not in {None, False}


def _by_table(flags: Flags) -> Iterator[str]:
    for name, needed in _NEEDS.items():
        if _set(flags, name) and not _set(flags, needed):
            yield f"--{name} without --{needed} is refused; add {needed}, or leave it out"
    for name, (needed, value) in _NEEDS_VALUE.items():
        if _set(flags, name) and flags.get(needed) != value:
            yield f"--{name} is refused without --{needed} {value}; add it, or leave --{name} out"
    for one, other in _NOT_TOGETHER:
        if _set(flags, one) and _set(flags, other):
            yield f"--{one} and --{other} are refused together; leave one of them out"
    for name, whole, key in _TWICE:
        if _set(flags, name) and key in json_object(flags, whole):
            yield f"--{name} and the key {key} of --{whole} are refused together; leave one of them out"


def _unsupported(flags: Flags) -> Iterator[str]:
    """What no engine of the catalogue can do."""
    for (name, value), package in _NOT_INSTALLED.items():
        if flags.get(name) == value:
            yield f"--{name} {value} needs {package}, which is not installed with the engine; leave it out"
    for name in ("max-num-partial-prefills", "max-long-partial-prefills"):
        if (number(flags.get(name)) or 1) > 1:
            yield f"--{name} {flags[name]}: vLLM does not support concurrent partial prefills; leave it out"
    if _set(flags, "mamba-block-size") and flags.get("enable-prefix-caching") is False:
        yield "--mamba-block-size is refused without prefix caching; leave one of the two out"
    if flags.get("skip-tokenizer-init") and flags.get("tokenizer-mode") == "mistral":
        yield "--skip-tokenizer-init is refused with the mistral tokenizer; leave it out"


def _by_size(launch: Launch) -> Iterator[str]:
    """Sizes that must agree with each other."""
    flags = launch.arguments.flags
    yield from _by_parallelism(flags)
    divided = _size(flags, "decode-context-parallel-size") > 1
    if _before_032(launch) and flags.get("dcp-comm-backend") == "a2a" and not divided:
        yield "--dcp-comm-backend a2a is refused without --decode-context-parallel-size above 1; leave it out"
    loras = _size(flags, "max-cpu-loras", 0)
    if _set(flags, "enable-lora") and 0 < loras < _size(flags, "max-loras"):
        yield f"--max-cpu-loras {loras:g} is below --max-loras {_size(flags, 'max-loras'):g}; raise it"
    if 0 < _size(flags, "offload-group-size", 0) < _size(flags, "offload-num-in-group"):
        yield "--offload-num-in-group is above --offload-group-size; lower it"
    listed, largest = launch.arguments.capture_sizes, number(flags.get("max-cudagraph-capture-size"))
    if launch.arguments.cuda_graphs and listed and largest is not None and largest != max(listed):
        yield (
            f"--max-cudagraph-capture-size {largest:g} is not the largest of --{CAPTURE_SIZES}, {max(listed)}; "
            "leave it out"
        )
    images = accepts_images(launch.model.dimensions, launch.arguments) and _before_032(launch)
    if images and _size(flags, "renderer-num-workers") > 1 and _size(flags, "mm-processor-cache-gb", 4) > 0:
        yield "--renderer-num-workers above 1 is refused with the cache of images; add mm-processor-cache-gb: 0"


def _by_parallelism(flags: Flags) -> Iterator[str]:
    """Sizes of the divisions over GPUs."""
    tensor, parts = _size(flags, "tensor-parallel-size"), _size(flags, "data-parallel-size")
    context, prefill = (
        _size(flags, "decode-context-parallel-size"),
        _size(flags, "prefill-context-parallel-size"),
    )
    if prefill > 1 and parts > 1:
        yield "--prefill-context-parallel-size and --data-parallel-size are refused together; leave one of them out"
    if prefill == 1 and context >= 1 and tensor % context:
        yield f"--decode-context-parallel-size {context:g} does not divide --tensor-parallel-size {tensor:g}; use 1"
    if _set(flags, "enable-eplb") and tensor * prefill * parts <= 1:
        yield "--enable-eplb is refused on one GPU; leave it out"
    if not _set(flags, "enable-eplb") and json_object(flags, "eplb-config").get("num_redundant_experts"):
        yield "--eplb-config with num_redundant_experts is refused without --enable-eplb; add it"


def _before_032(launch: Launch) -> bool:
    """Whether the engine is older than 0.32.0, which dropped some checks (run on 0.26.0, 0.32.0 and 0.33.0)."""
    return release(launch.engine.version) < (0, 32)


def _size(flags: Flags, name: str, usual: float = 1) -> float:
    found = number(flags.get(name))
    return usual if found is None else found
