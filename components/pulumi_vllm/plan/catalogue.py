"""The catalogue: models, engines, GPUs and measured runs, read once from the data files beside this module."""

from __future__ import annotations

import functools
import json
import pathlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from pulumi_vllm.plan import engine_locks, yaml_text

if TYPE_CHECKING:
    from collections.abc import Mapping

_DATA = pathlib.Path(__file__).parent / "data"

_GENERATE = "generate"

GPU_COUNTS = (1, 2, 4, 8)
"""GPUs in one machine, as clouds rent them out."""

CPU = "CPU"
"""The GPU family of a machine without a GPU."""

WARM_REPLACEMENT = "replacement host, warm caches"
"""In `Measured.ready_s`: a new host that starts with the caches on the volume of the host that it replaces."""


@dataclass(frozen=True, slots=True)
class Precision:
    """One published form of the weights. `linear_bytes` and `expert_bytes` are bytes per parameter.

    `tensors` are the exact bytes by group (tensor_groups.py), where the files' headers were read; they win over bytes
    per parameter. `block_scales`: one scale per block of weights, not per tensor, which other kernels read.
    `digests` are the sha256 of files by path. They come before what the hub and the manifest on the volume say.
    """

    name: str
    repository: str
    revision: str
    bytes: int
    linear_bytes: float
    expert_bytes: float
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    tensors: Mapping[str, int] = field(default_factory=dict)
    block_scales: bool = False


@dataclass(frozen=True, slots=True)
class Golden:
    """A prompt with the checksum of its answer's token ids."""

    prompt: str
    max_tokens: int
    reasoning_effort: str
    sha256_12: str


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Published sizes of the network; `attention` and `mlp` hold those of their kind (model_schema.py).

    `vision` is empty if the model has no vision tower; its `patches` and `tokens` are those of the largest image, where
    the tower's kind has a formula for what a step of images takes.
    """

    layers: int
    hidden: int
    heads: int
    vocabulary: int
    tied_embeddings: bool
    rope_positions: int
    attention: Mapping[str, Any]
    mlp: Mapping[str, Any]
    vision: Mapping[str, Any] = field(default_factory=dict)

    @property
    def image_formula(self) -> bool:
        """Whether there is a formula for what a step of images takes: for Pixtral's tower only."""
        return self.vision.get("kind") == "pixtral"


@dataclass(frozen=True, slots=True)
class RequestReading:
    """How a client's request is read for a model whose tokenizer refuses it otherwise.

    `developer_role` is the role that a message of role `developer` gets. `reasoning_efforts` maps a client's effort to
    one that the model has, `thinking_effort` is the one of a request that enables thinking and names none.
    """

    developer_role: str | None = None
    reasoning_efforts: Mapping[str, str] = field(default_factory=dict)
    thinking_effort: str | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the catalogue, or of a file beside the stack file.

    `tasks` are those of vLLM that it can do, which decide the gateway's routes. `thinks` is always, on request, or
    never. `source` says where the figures come from, `unknown` what could not be known.
    """

    name: str
    maximum_context: int
    license: str
    dimensions: Dimensions
    precisions: Mapping[str, Precision]
    flags: Mapping[str, Any]
    golden: tuple[Golden, ...] = ()
    tasks: tuple[str, ...] = (_GENERATE,)
    requests: RequestReading = RequestReading()
    architecture: str | None = None
    thinks: str = "never"
    source: str = ""
    unknown: tuple[str, ...] = ()

    @property
    def is_moe(self) -> bool:
        """Whether the model is a mixture of experts."""
        return bool(self.dimensions.mlp["kind"] == "moe")


@dataclass(frozen=True, slots=True)
class Engine:
    """A vLLM version. `runs_on` is cuda or cpu; `expert_flags` and `vision_flags` are keyed by precision.

    `given_cache`: measured starts are repeated with the KV cache's size in bytes, which saves vLLM a profile.
    `few_graphs`: on one GPU, half of the CUDA graphs serve as fast as all of them (cuda_graphs.few_sizes).
    `sequences`: GPU → profile → requests at once, as measured. `priority_flags` apply where a key has a priority.
    """

    version: str
    runs_on: str
    locked: tuple[str, ...]
    left_out: tuple[str, ...]
    driver_floor: str | None
    needs_compiler: bool
    disk_gib: int
    flags: Mapping[str, Any]
    environment: Mapping[str, str]
    expert_flags: Mapping[str, Mapping[str, Any]]
    vision_flags: Mapping[str, Mapping[str, Any]]
    tensor_parallel: Mapping[str, Mapping[str, Any]]
    memory: Mapping[str, Any]
    given_cache: bool = False
    few_graphs: bool = False
    sequences: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    priority_flags: Mapping[str, Any] = field(default_factory=dict)

    def locks(self) -> dict[str, str]:
        """Python minor version → text of its hashed requirements."""
        return engine_locks.of(self.version)


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU in one form: SXM (a module on a board), PCIe or NVL (cards).

    `engine` is the version that serves on it where a stack file names none. The driver reports `memory_mib`, of which a
    program can use `visible_gib`; `memory_from` is "measured", or says who reported both. `named` are words of the
    driver's name. `nvlink_gb_s` counts both directions; with `nvlink_pairs` it links two cards only.
    `processor` is that of the machine. Prices are per GPU and hour, by billing. From `nvswitch_from` GPUs on, the
    machine needs a fabric manager.
    """

    name: str
    engine: str
    form: str
    named: tuple[str, ...]
    memory_mib: int
    visible_gib: float
    memory_from: str
    compute_capability: str | None
    bandwidth_gb_s: int | None = None
    nvlink_gb_s: int | None = None
    nvlink_pairs: bool = False
    nvswitch_from: int | None = None
    processor: str = "x86_64"
    usd_per_hour: Mapping[str, float] = field(default_factory=dict)

    @property
    def measured(self) -> bool:
        """Whether engines were started on it, so that the memory's constants are known there."""
        return self.memory_from == "measured"

    @property
    def runs(self) -> str:
        """Kind of engine that runs on it: cuda or cpu."""
        return "cpu" if self.name == CPU else "cuda"


@dataclass(frozen=True, slots=True)
class Measured:
    """A measured run: a start of vLLM and a load, with the command line's `flags`.

    `tokens_per_s` counts output tokens, by concurrent streams. `ready_s` is the time until vLLM was ready, by the state
    of the host: "fresh host", WARM_REPLACEMENT, or another. `load` holds each level's figures under the names of `vllm
    bench serve`. Older runs recorded neither flags nor load. `died_of` says what ended an engine that had been serving.
    `prompt_rates` are input tokens per second, `token_ms` milliseconds per output token of a request that is served
    alone, both by the length of the prompt (lab/gpu/compact.py).
    With several `engines`, streams and rates are those of all engines together, flags and `kv_tokens` of each.
    """

    model: str
    precision: str
    engine: str
    gpu: str
    count: int
    date: str
    kv_tokens: int
    ready_s: Mapping[str, int]
    tokens_per_s: Mapping[int, float]
    conditions: str
    flags: Mapping[str, bool | str] = field(default_factory=dict)
    load: tuple[Mapping[str, Any], ...] = ()
    died_of: str = ""
    prompt_rates: Mapping[int, float] = field(default_factory=dict)
    token_ms: Mapping[int, float] = field(default_factory=dict)
    engines: int = 1


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything that is known, by name."""

    models: Mapping[str, Model]
    engines: Mapping[str, Engine]
    gpus: Mapping[str, Gpu]
    prices_from: str
    measured: tuple[Measured, ...] = ()

    def default_engine(self, gpu: Gpu) -> Engine:
        """The engine that serves on such a GPU where a stack file names none."""
        return self.engines[gpu.engine]


@functools.cache
def load() -> Catalogue:
    """The catalogue of the data files."""
    models = (model_of(_read(path)) for path in sorted((_DATA / "models").glob("*.yaml")))
    engines = (_engine(_read(path)) for path in sorted((_DATA / "engines").glob("*/engine.yaml")))
    gpus = _read(_DATA / "gpus.yaml")
    return Catalogue(
        models={model.name: model for model in models},
        engines={engine.version: engine for engine in engines},
        gpus={name: gpu_of(name, fields) for name, fields in gpus["gpus"].items()},
        prices_from=gpus["prices_from"],
        measured=tuple(_measured(run) for run in json.loads((_DATA / "evidence.json").read_text())["runs"]),
    )


def _read(path: pathlib.Path) -> dict[str, Any]:
    return cast("dict[str, Any]", yaml_text.load(path.read_text(), path.name))


def model_of(data: Mapping[str, Any]) -> Model:
    """The model of a model file, which model_schema.py has checked."""
    precisions = {name: _precision(name, fields) for name, fields in data["precisions"].items()}
    golden = tuple(Golden(**one) for one in data.get("golden", ()))
    dimensions = Dimensions(**data["dimensions"])
    typed: dict[str, Any] = {
        "dimensions": dimensions,
        "precisions": precisions,
        "golden": golden,
        "tasks": tuple(data.get("tasks", (_GENERATE,))),
        "requests": RequestReading(**data.get("requests", {})),
        "unknown": tuple(data.get("unknown", ())),
    }
    return Model(**{**data, **typed})


def gpu_of(name: str, fields: Mapping[str, Any]) -> Gpu:
    """The GPU of an entry of gpus.yaml."""
    return Gpu(name=name, **{**fields, "named": tuple(fields["named"])})


def _precision(name: str, fields: Mapping[str, Any]) -> Precision:
    lists = {key: tuple(fields[key]) for key in ("include", "exclude") if key in fields}
    return Precision(name=name, **{**fields, **lists})


def _engine(data: dict[str, Any]) -> Engine:
    return Engine(**{**data, "locked": tuple(data["locked"]), "left_out": tuple(data["left_out"])})


def _measured(run: dict[str, Any]) -> Measured:
    by_number = {
        name: {int(number): value for number, value in run.get(name, {}).items()}
        for name in ("tokens_per_s", "prompt_rates", "token_ms")
    }
    return Measured(**{**run, **by_number, "load": tuple(run.get("load", ()))})
