"""What one GPU must hold, computed from the model's published dimensions and vLLM's arguments."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import floor
from typing import TYPE_CHECKING, Any

from pulumi_vllm.plan.engine_arguments import UNLIMITED_IMAGES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pulumi_vllm.plan.catalogue import Dimensions, Engine, Gpu, Precision
    from pulumi_vllm.plan.engine_arguments import EngineArguments

GIB = 2**30
_BF16 = 2
_DEFAULT_SEQUENCES = 1024
"""vLLM's own max-num-seqs for a server on GPUs of 70 GiB and more (source of 0.26.0 and 0.33.0)."""
_DEFAULT_UTILIZATION = 0.92
"""vLLM's own gpu-memory-utilization (0.26.0 and 0.33.0)."""

_MOST_CAPTURED = 512
"""vLLM's own limit of max-cudagraph-capture-size (0.26.0 and 0.33.0)."""
_CAPTURE_STEP = 16
"""Step between vLLM's capture sizes above 256 (0.26.0 and 0.33.0)."""
_GRAPHS_OF_256, _GRAPHS_OF_512 = 86, 102
"""Graphs captured with max-num-seqs 256 and 512."""

UNMODELLED = (
    "pipeline-parallel-size",
    "data-parallel-size",
    "decode-context-parallel-size",
    "prefill-context-parallel-size",
    "enable-expert-parallel",
    "kv-cache-memory-bytes",
    "num-gpu-blocks-override",
    "cpu-offload-gb",
    "enable-lora",
    "speculative-config",
    "cudagraph-capture-sizes",
)
"""Arguments that change what a GPU holds, and that no formula in this module covers."""


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """The settings that decide what a GPU holds.

    `capture_size` is max-cudagraph-capture-size; None is vLLM's default. `images` is the limit of one request. With 0,
    vLLM does not load the vision tower.
    """

    tensor_parallel: int
    context: int
    sequences: int
    utilization: float
    batched_tokens: int
    images: int = UNLIMITED_IMAGES
    graphs: bool = True
    cache_bytes: int = _BF16
    capture_size: int | None = None

    @property
    def largest_graph(self) -> int:
        """Sequences of the largest captured graph, by vLLM's default if `capture_size` is unset."""
        return default_capture_size(self.sequences) if self.capture_size is None else self.capture_size

    @property
    def largest_graph_used(self) -> int:
        """Sequences of the largest captured decode graph."""
        return min(self.sequences, self.largest_graph)

    @classmethod
    def of(cls, arguments: EngineArguments, engine: Engine, longest: int) -> MemorySettings:
        """The settings of a command line, with vLLM's defaults; `longest` is the context if none is set."""
        context, batch = arguments.context or longest, int(engine.memory["batched_tokens"])
        if not arguments.chunked_prefill:
            batch = max(batch, context)  # a whole prompt is one step then (EngineArgs of 0.26.0)
        return cls(
            tensor_parallel=arguments.tensor_parallel,
            context=context,
            sequences=arguments.sequences or _DEFAULT_SEQUENCES,
            utilization=arguments.utilization or _DEFAULT_UTILIZATION,
            batched_tokens=arguments.batched_tokens or batch,
            images=arguments.image_limit,
            graphs=arguments.cuda_graphs,
            cache_bytes=1 if arguments.fp8_cache else _BF16,
            capture_size=arguments.capture_size,
        )


@dataclass(frozen=True, slots=True)
class Budget:
    """Memory of one GPU in GiB. vLLM uses up to `limit_gib`; `beyond_gib` must fit above that limit.

    `headroom_gib`: PyTorch's fragmentation, and communication buffers if there are several GPUs.
    `accepts_images`: whether requests may hold images.
    `images_per_step`: images of the largest size in the step that sets the peak activation; 0 if text sets it.
    `graphs_least_gib`: the least that vLLM may estimate for the CUDA graphs; `graphs_gib` is then the most.
    `burst_gib`: peak activation of a batch of small images beyond vLLM's profiled peak.
    """

    visible_gib: float
    limit_gib: float
    weights_gib: float
    activation_gib: float
    other_gib: float
    graphs_gib: float
    graphs_excess_gib: float
    kv_bytes_per_token: int
    context: int
    headroom_gib: float = 0.0
    images_per_step: int = 0
    burst_gib: float = 0.0
    accepts_images: bool = False
    graphs_least_gib: float | None = None

    @property
    def cache_gib(self) -> float:
        """Memory for the KV cache; negative if the weights alone do not fit."""
        return self.limit_gib - self.weights_gib - self.activation_gib - self.other_gib - self.graphs_gib

    @property
    def kv_tokens(self) -> int:
        """Tokens that the KV cache holds, over all requests."""
        return max(0, int(self.cache_gib * GIB / self.kv_bytes_per_token))

    @property
    def kv_tokens_at_most(self) -> int:
        """Tokens that the KV cache holds if vLLM estimates the least for the CUDA graphs."""
        spread = 0.0 if self.graphs_least_gib is None else self.graphs_gib - self.graphs_least_gib
        return max(0, int((self.cache_gib + spread) * GIB / self.kv_bytes_per_token))

    @property
    def full_requests(self) -> float:
        """Requests of the full context that fit at once."""
        return self.kv_tokens / self.context

    @property
    def short_gib(self) -> float:
        """Memory missing for one request of the full context; 0 if it fits."""
        return max(0.0, self.context * self.kv_bytes_per_token / GIB - self.cache_gib)

    @property
    def above_limit_gib(self) -> float:
        """Memory above vLLM's limit."""
        return self.visible_gib - self.limit_gib

    @property
    def beyond_gib(self) -> float:
        """Memory that the process needs above vLLM's limit."""
        return self.graphs_excess_gib + self.headroom_gib + self.burst_gib

    @property
    def safe_utilization(self) -> float:
        """The largest utilization, in hundredths, that leaves enough memory above the limit; 0 if none does."""
        return max(0, floor((1 - self.beyond_gib / self.visible_gib) * 100)) / 100

    @property
    def fits(self) -> bool:
        """Whether one request of the full context fits, and what is needed above the limit as well."""
        return self.short_gib == 0 and self.beyond_gib <= self.above_limit_gib


def accepts_images(model: Dimensions, arguments: EngineArguments) -> bool:
    """Whether a model has a vision tower and its arguments let it be used."""
    return bool(model.vision) and arguments.image_limit > 0


def budget(
    model: Dimensions, precision: Precision, engine: Engine, gpu: Gpu, settings: MemorySettings
) -> Budget:
    """The memory budget of one of the machine's GPUs, which are all alike."""
    figures = engine.memory
    graphs = graph_memory(model, precision, engine, settings)
    vision = burst = 0.0
    images = settings.images > 0 and bool(model.vision)
    text = activation_bytes(model, settings, figures.get("expert_streams")) / GIB + figures["workspace_gib"]
    if "sampler" in figures:
        text = max(text, sampler_bytes(model, settings, figures["sampler"], images=images) / GIB)
    if images and "image_stream" in figures:
        vision, burst = (one / GIB for one in image_bytes(model, settings, figures["image_stream"]))
    return Budget(
        visible_gib=gpu.visible_gib,
        limit_gib=gpu.visible_gib * settings.utilization,
        weights_gib=weight_bytes(model, precision, settings.tensor_parallel, vision=settings.images > 0) / GIB
        + figures["buffers_gib"],
        activation_gib=max(text, vision),
        other_gib=_other(figures["other_gib"], settings),
        graphs_gib=graphs.estimated_gib,
        graphs_excess_gib=max(0.0, graphs.actual_gib - graphs.least_gib),
        kv_bytes_per_token=kv_bytes_per_token(model, settings.tensor_parallel, settings.cache_bytes),
        context=settings.context,
        headroom_gib=_headroom(figures["headroom_gib"], settings, images=images),
        images_per_step=images_per_step(model, settings) if vision > text else 0,
        burst_gib=max(0.0, burst - max(text, vision)),
        accepts_images=images,
        graphs_least_gib=graphs.least_gib if graphs.least_gib < graphs.estimated_gib else None,
    )


def _other(known: float | Mapping[str, float], settings: MemorySettings) -> float:
    """GiB beside weights, activation and graphs: a constant (0.26.0), or one that grows with batch and sequences."""
    if not isinstance(known, dict):
        return float(known)  # type: ignore[arg-type]
    batch, sequences = settings.batched_tokens / 1024, settings.sequences / 256
    return float(known["fixed"] + known["per_1024_tokens"] * batch + known["per_256_sequences"] * sequences)


def _headroom(known: Mapping[str, Any], settings: MemorySettings, *, images: bool) -> float:
    """GiB needed above the limit beside graphs and masks; with images by the batch, up to the largest known one."""
    if settings.tensor_parallel > 1:
        return float(known["several"])
    if not images:
        return float(known["one"])
    batches: Mapping[int, float] = known["one_with_images"]
    return float(
        batches[min((one for one in batches if settings.batched_tokens <= one), default=max(batches))]
    )


def safe_budget(
    model: Dimensions, precision: Precision, engine: Engine, gpu: Gpu, settings: MemorySettings
) -> Budget:
    """The budget at the given utilization, or at a lower one if that leaves too little above the limit."""
    found = budget(model, precision, engine, gpu, settings)
    if found.safe_utilization >= settings.utilization:
        return found
    return budget(model, precision, engine, gpu, replace(settings, utilization=found.safe_utilization))


def kv_bytes_per_token(model: Dimensions, tensor_parallel: int, cache_bytes: int = _BF16) -> int:
    """KV cache of one token on one GPU. MLA replicates the latent on every GPU; GQA shards heads, at least one each."""
    attention = model.attention
    if attention["kind"] == "mla":
        return int(model.layers * (attention["kv_lora_rank"] + attention["qk_rope_head_dim"]) * cache_bytes)
    heads = -(-attention["kv_heads"] // tensor_parallel)
    return int(model.layers * 2 * heads * attention["head_dim"] * cache_bytes)


def weight_bytes(model: Dimensions, precision: Precision, tensor_parallel: int, *, vision: bool) -> float:
    """Weights on one GPU: its share of the sharded part, and all of the replicated part."""
    sharded, replicated = _attention_bytes(model, precision)
    experts, router = _mlp_bytes(model, precision)
    norms = 2 * model.hidden * _BF16
    vocabulary = model.vocabulary * model.hidden * _BF16 * (1 if model.tied_embeddings else 2)
    rope = model.rope_positions * _rope_dim(model) * _BF16
    tower = tower_bytes(model, tensor_parallel) if vision else 0
    split = model.layers * (sharded + experts) + vocabulary
    return split / tensor_parallel + tower + model.layers * (replicated + router + norms) + rope


def tower_bytes(model: Dimensions, tensor_parallel: int) -> float:
    """The vision tower's share on one GPU. It has 16 bits per weight in every precision."""
    return float(model.vision.get("parameters", 0) * _BF16 / tensor_parallel)


def images_per_step(model: Dimensions, settings: MemorySettings) -> int:
    """Images of the largest size in one step: as many as the batch and the requests can hold."""
    each = model.vision["tokens"]
    of_requests = settings.sequences * max(1, min(settings.images, settings.context // each))
    return int(max(1, min(settings.batched_tokens // each, of_requests)))


def image_bytes(model: Dimensions, settings: MemorySettings, stream: float) -> tuple[float, float]:
    """Peak activation of the vision tower for `images_per_step`, as vLLM profiles it, and for the fullest step, 16 bit.

    vLLM 0.26.0 (`pixtral.py`) separates the images of a step by one dense mask, the square of all their patches, and
    PyTorch's attention copies a mask whose side is not a multiple of 8. The peak therefore grows with the square of the
    batch, and a batch full of smaller images has more patches than the profiled one. `stream` is in tower widths per
    patch.
    """
    tower, parallel = model.vision, settings.tensor_parallel

    def peak(patches: float, *, copied: bool) -> float:
        mask = patches**2
        attention = copied * mask + patches * 3 * tower["hidden"] / parallel  # queries, keys, values
        mlp = patches * 3 * tower["intermediate"] / parallel  # gate, up, and their product
        return _BF16 * (mask + patches * stream * tower["hidden"] + max(attention, mlp))

    profiled = images_per_step(model, settings) * tower["patches"]
    tokens = min(
        settings.batched_tokens,
        settings.sequences * settings.context,
        settings.sequences * settings.images * tower["tokens"],
    )
    fullest = max(profiled, tokens * tower["patches"] / tower["tokens"])
    return peak(profiled, copied=profiled % 8 > 0), peak(fullest, copied=True)


def activation_bytes(
    model: Dimensions, settings: MemorySettings, expert_streams: float | None = None
) -> float:
    """Peak of one forward pass of a full batch, 16 bit: a block's tensors, and MLA's workspace for cached prompts.

    vLLM allocates the workspace while it profiles: min(65,536, max(8 contexts, 64 per sequence)) tokens, up-projected
    to this GPU's heads (vLLM 0.26.0, chunked prefill of MLA). With `expert_streams`, a batch of a mixture of experts
    takes so many hidden states per token: Model Runner V2 of 0.33.0 reports no more.
    """
    attention, mlp, parallel = model.attention, model.mlp, settings.tensor_parallel
    inner = mlp["intermediate"] / parallel
    block: float = 2 * inner + inner  # gate and up, and their product; an expert's output reuses the first
    if mlp["kind"] == "moe":
        block = mlp["active"] * (max(2 * inner, model.hidden) + inner)
    stream: float = model.hidden * (5 + (parallel > 1))  # residual, norms, sums; the sum over GPUs
    if expert_streams is not None and mlp["kind"] == "moe":
        block, stream = 0.0, model.hidden * expert_streams
    cached = 0.0
    if attention["kind"] == "mla":
        tokens = min(65_536, max(8 * settings.context, 64 * settings.sequences))
        cached = tokens * model.heads / parallel * (attention["qk_nope_head_dim"] + attention["v_head_dim"])
    return float(_BF16 * (settings.batched_tokens * (block + stream) + cached))


def sampler_bytes(
    model: Dimensions, settings: MemorySettings, known: Mapping[str, float], *, images: bool
) -> float:
    """Peak of the sampler as vLLM profiles it: a row of the vocabulary per sequence, beside a batch's hidden states."""
    rows = settings.sequences * model.vocabulary * known["bytes_per_entry"]
    batch = settings.batched_tokens * model.hidden * _BF16 * known["streams"]
    return float(rows + batch + images * known["images_gib"] * GIB)


@dataclass(frozen=True, slots=True)
class GraphMemory:
    """CUDA graphs in GiB: the most and the least that vLLM may estimate, and what they take in use."""

    estimated_gib: float = 0.0
    least_gib: float = 0.0
    actual_gib: float = 0.0


def graph_memory(
    model: Dimensions, precision: Precision, engine: Engine, settings: MemorySettings
) -> GraphMemory:
    """CUDA graphs as vLLM estimates them, and what they take in use.

    0.26.0: a constant per graph and layer, up to `max-num-seqs` 256. The estimates of 512 sequences were no larger. The
    graphs of more than 512 sequences have constants of their own. 0.33.0: the estimate does not follow the flags, so
    the measured range is given; what the graphs take in use grows with the sequences.
    """
    if not settings.graphs:
        return GraphMemory()
    figures = engine.memory
    if "graphs_estimated_gib" in figures:
        ranges = figures["graphs_estimated_gib"]
        least, most = ranges.get(precision.name, ranges["fp8"])[
            "one" if settings.tensor_parallel == 1 else "several"
        ]
        used = figures["graphs_actual_gib"]
        return GraphMemory(
            most, least, used["fixed"] + used["per_256_sequences"] * settings.largest_graph_used / 256
        )
    table, many = figures["graph_mib_per_layer"], figures["graph_mib_per_layer_above_512"]
    one = table.get(precision.name, table["fp8"])
    each = one["fixed"] + one["sharded"] / settings.tensor_parallel
    mib = model.layers * 2**20
    graphs = captured_graphs(settings.sequences, settings.largest_graph)
    few = mib * each * min(graphs, _GRAPHS_OF_256)
    above = mib * max(0, graphs - _GRAPHS_OF_512)
    estimated = above * many["estimated"].get(precision.name, many["estimated"]["fp8"])
    found, actual = few + estimated, few * figures["graphs_actual_over_estimated"] + above * many["actual"]
    return GraphMemory(found / GIB, found / GIB, actual / GIB)


def default_capture_size(sequences: int) -> int:
    """Sequences of the largest graph that vLLM captures if `max-cudagraph-capture-size` is unset (VllmConfig)."""
    return min(_MOST_CAPTURED, 2 * sequences)


def captured_graphs(sequences: int, largest: int) -> int:
    """Graphs that vLLM captures: piecewise ones up to the largest size, decode ones up to max-num-seqs as well."""
    sizes = [size for size in (1, 2, 4, *range(8, 256, 8), *range(256, largest + 1, 16)) if size <= largest]
    return len(sizes) + sum(1 for size in sizes if size <= sequences)


def capture_size_for(sequences: int) -> int:
    """The smallest size in vLLM's list of graphs that holds so many sequences, for more than 256."""
    return -(-sequences // _CAPTURE_STEP) * _CAPTURE_STEP


def _rope_dim(model: Dimensions) -> int:
    return int(model.attention.get("qk_rope_head_dim") or model.attention["head_dim"])


def _attention_bytes(model: Dimensions, precision: Precision) -> tuple[float, float]:
    """Sharded and replicated bytes of one layer's attention."""
    attention, each = model.attention, precision.linear_bytes
    if attention["kind"] != "mla":
        width = attention["head_dim"] * (2 * model.heads + 2 * attention["kv_heads"])
        return model.hidden * width * each, 0.0
    nope, rope, v = attention["qk_nope_head_dim"], attention["qk_rope_head_dim"], attention["v_head_dim"]
    q_rank, kv_rank = attention["q_lora_rank"], attention["kv_lora_rank"]
    kv_b = kv_rank * model.heads * (nope + v)
    sharded = (q_rank * model.heads * (nope + rope) + kv_b + model.heads * v * model.hidden) * each
    absorbed = kv_b * _BF16 if each < _BF16 else 0  # a 16-bit copy is kept beside quantised weights
    replicated = model.hidden * (q_rank + kv_rank + rope) * each + (q_rank + kv_rank) * _BF16
    return sharded + absorbed, replicated


def _mlp_bytes(model: Dimensions, precision: Precision) -> tuple[float, float]:
    """Sharded and replicated bytes of one layer's experts, or of its dense block."""
    mlp = model.mlp
    block = 3 * model.hidden * mlp["intermediate"]
    if mlp["kind"] != "moe":
        return block * precision.expert_bytes, 0.0
    return block * (mlp["experts"] + mlp["shared"]) * precision.expert_bytes, model.hidden * mlp[
        "experts"
    ] * _BF16
