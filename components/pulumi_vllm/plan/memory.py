"""What one GPU must hold, from published dimensions and the flags. Knows arithmetic, not clouds or files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import floor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pulumi_vllm.plan.catalogue import Dimensions, Engine, Gpu, Precision

GIB = 2**30
_BF16 = 2
IMAGES = 999
"""vLLM's own limit of images in a request (0.26.0)."""


@dataclass(frozen=True, slots=True)
class Load:
    """How the server is to be used, as far as memory cares.

    `images` is the limit of one request; with 0 the vision tower is left out.
    """

    tensor_parallel: int
    context: int
    sequences: int
    utilization: float
    batched_tokens: int
    images: int = IMAGES
    graphs: bool = True
    cache_bytes: int = 2


@dataclass(frozen=True, slots=True)
class Budget:
    """GiB of one GPU. `limit_gib` is what vLLM may use; what is above it holds what `beyond_gib` adds up.

    `headroom_gib`: PyTorch's fragments, and what several GPUs' communication takes; `accepts_images`: whether requests
    may hold images.
    `images_per_step`: so many of the largest size are read at once where they set the activation, 0 where text does.
    `burst_gib`: what a step full of smaller images takes beyond the activation that vLLM sets aside.
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

    @property
    def cache_gib(self) -> float:
        """What is left for the KV cache; negative when the weights alone do not fit."""
        return self.limit_gib - self.weights_gib - self.activation_gib - self.other_gib - self.graphs_gib

    @property
    def kv_tokens(self) -> int:
        """Tokens that the KV cache holds, over all requests."""
        return max(0, int(self.cache_gib * GIB / self.kv_bytes_per_token))

    @property
    def full_requests(self) -> float:
        """Requests of the full context that fit at once."""
        return self.kv_tokens / self.context

    @property
    def short_gib(self) -> float:
        """How much is missing for one request of the full context; 0 when it fits."""
        return max(0.0, self.context * self.kv_bytes_per_token / GIB - self.cache_gib)

    @property
    def above_limit_gib(self) -> float:
        """What vLLM leaves alone."""
        return self.visible_gib - self.limit_gib

    @property
    def beyond_gib(self) -> float:
        """What the process takes above vLLM's limit."""
        return self.graphs_excess_gib + self.headroom_gib + self.burst_gib

    @property
    def safe_utilization(self) -> float:
        """The largest utilization, in hundredths, that leaves room above the limit for that; 0 where none does."""
        return max(0, floor((1 - self.beyond_gib / self.visible_gib) * 100)) / 100

    @property
    def fits(self) -> bool:
        """Whether one request of the full context fits, and what grows beyond the limit finds room."""
        return self.short_gib == 0 and self.beyond_gib <= self.above_limit_gib


def budget(model: Dimensions, precision: Precision, engine: Engine, gpu: Gpu, load: Load) -> Budget:
    """The budget of one of the machine's GPUs; they are alike."""
    figures = engine.memory
    graphs = graph_bytes(model, precision, engine, load) / GIB
    text = activation_bytes(model, load) / GIB + figures["workspace_gib"]
    seen = burst = 0.0
    images = load.images > 0 and bool(model.vision)
    if images:
        seen, burst = (one / GIB for one in image_bytes(model, load, figures["image_stream"]))
    return Budget(
        visible_gib=gpu.visible_gib,
        limit_gib=gpu.visible_gib * load.utilization,
        weights_gib=weight_bytes(model, precision, load.tensor_parallel, vision=load.images > 0) / GIB
        + figures["buffers_gib"],
        activation_gib=max(text, seen),
        other_gib=figures["other_gib"],
        graphs_gib=graphs,
        graphs_excess_gib=graphs * (figures["graphs_actual_over_estimated"] - 1),
        kv_bytes_per_token=kv_bytes_per_token(model, load.tensor_parallel, load.cache_bytes),
        context=load.context,
        headroom_gib=_headroom(figures["headroom_gib"], load, images=images),
        images_per_step=images_per_step(model, load) if seen > text else 0,
        burst_gib=max(0.0, burst - max(text, seen)),
        accepts_images=images,
    )


def _headroom(known: Mapping[str, Any], load: Load, *, images: bool) -> float:
    """GiB beyond the limit, the graphs and the masks. With images it is by the batch, and the largest known above."""
    if load.tensor_parallel > 1:
        return float(known["several"])
    if not images:
        return float(known["one"])
    batches: Mapping[int, float] = known["one_with_images"]
    return float(batches[min((one for one in batches if load.batched_tokens <= one), default=max(batches))])


def settled(model: Dimensions, precision: Precision, engine: Engine, gpu: Gpu, load: Load) -> Budget:
    """The budget at the load's utilization, or at a lower one where that leaves too little above the limit."""
    found = budget(model, precision, engine, gpu, load)
    if found.safe_utilization >= load.utilization:
        return found
    return budget(model, precision, engine, gpu, replace(load, utilization=found.safe_utilization))


def kv_bytes_per_token(model: Dimensions, tensor_parallel: int, cache_bytes: int = _BF16) -> int:
    """KV cache of one token on one GPU. MLA: the latent, whole on every GPU. GQA: the GPU's heads, at least one."""
    attention = model.attention
    if attention["kind"] == "mla":
        return int(model.layers * (attention["kv_lora_rank"] + attention["qk_rope_head_dim"]) * cache_bytes)
    heads = -(-attention["kv_heads"] // tensor_parallel)
    return int(model.layers * 2 * heads * attention["head_dim"] * cache_bytes)


def weight_bytes(model: Dimensions, precision: Precision, tensor_parallel: int, *, vision: bool) -> float:
    """Weights on one GPU: the sharded part divided, the replicated part whole."""
    sharded, replicated = _attention_bytes(model, precision)
    experts, router = _mlp_bytes(model, precision)
    norms = 2 * model.hidden * _BF16
    vocabulary = model.vocabulary * model.hidden * _BF16 * (1 if model.tied_embeddings else 2)
    rope = model.rope_positions * _rope_dim(model) * _BF16
    tower = tower_bytes(model, tensor_parallel) if vision else 0
    split = model.layers * (sharded + experts) + vocabulary
    return split / tensor_parallel + tower + model.layers * (replicated + router + norms) + rope


def tower_bytes(model: Dimensions, tensor_parallel: int) -> float:
    """The vision tower's part on one GPU, 16 bit in every precision."""
    return float(model.vision.get("parameters", 0) * _BF16 / tensor_parallel)


def images_per_step(model: Dimensions, load: Load) -> int:
    """Of the largest size, how many vLLM reads at once: as many as the batch and the requests have room for."""
    each = model.vision["tokens"]
    of_requests = load.sequences * max(1, min(load.images, load.context // each))
    return int(max(1, min(load.batched_tokens // each, of_requests)))


def image_bytes(model: Dimensions, load: Load, stream: float) -> tuple[float, float]:
    """Peak while the vision tower reads `images_per_step`, as vLLM profiles it, and the largest of any step, 16 bit.

    vLLM 0.26.0 (`pixtral.py`) tells the images of a step apart by one dense mask, a square of all their patches, and
    PyTorch's attention copies a mask whose side is no multiple of 8. So this grows with the square of the batch, and a
    batch full of smaller images has more patches than the profiled one. `stream` is in tower widths a patch.
    """
    tower, parallel = model.vision, load.tensor_parallel

    def peak(patches: float, *, copied: bool) -> float:
        mask = patches**2
        attention = copied * mask + patches * 3 * tower["hidden"] / parallel  # queries, keys, values
        mlp = patches * 3 * tower["intermediate"] / parallel  # gate, up, and their product
        return _BF16 * (mask + patches * stream * tower["hidden"] + max(attention, mlp))

    profiled = images_per_step(model, load) * tower["patches"]
    tokens = min(
        load.batched_tokens, load.sequences * load.context, load.sequences * load.images * tower["tokens"]
    )
    fullest = max(profiled, tokens * tower["patches"] / tower["tokens"])
    return peak(profiled, copied=profiled % 8 > 0), peak(fullest, copied=True)


def activation_bytes(model: Dimensions, load: Load) -> float:
    """Peak of one forward pass of a full batch, 16 bit: a block's tensors, and MLA's room for cached prompts.

    That room is allocated while vLLM profiles: min(65,536, max(8 contexts, 64 per sequence)) tokens, up-projected
    on this GPU's heads (vLLM 0.26.0, chunked prefill of MLA).
    """
    attention, mlp, parallel = model.attention, model.mlp, load.tensor_parallel
    inner = mlp["intermediate"] / parallel
    block = 2 * inner + inner  # gate and up, and their product; an expert's answer reuses the first
    if mlp["kind"] == "moe":
        block = mlp["active"] * (max(2 * inner, model.hidden) + inner)
    stream = model.hidden * (5 + (parallel > 1))  # residual, norms, sums; the sum over GPUs
    cached = 0.0
    if attention["kind"] == "mla":
        tokens = min(65_536, max(8 * load.context, 64 * load.sequences))
        cached = tokens * model.heads / parallel * (attention["qk_nope_head_dim"] + attention["v_head_dim"])
    return float(_BF16 * (load.batched_tokens * (block + stream) + cached))


def graph_bytes(model: Dimensions, precision: Precision, engine: Engine, load: Load) -> float:
    """CUDA graphs as vLLM estimates them: so much per captured graph and layer."""
    if not load.graphs:
        return 0.0
    table = engine.memory["graph_mib_per_layer"]
    one = table.get(precision.name, table["fp8"])
    each = one["fixed"] + one["sharded"] / load.tensor_parallel
    return float(captured_graphs(load.sequences) * model.layers * each * 2**20)


def captured_graphs(sequences: int) -> int:
    """Graphs that vLLM captures: piecewise up to twice max-num-seqs (at most 512), decode up to it."""
    largest = min(512, 2 * sequences)
    sizes = [size for size in (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)) if size <= largest]
    return len(sizes) + sum(1 for size in sizes if size <= sequences)


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
    """Sharded and replicated bytes of one layer's experts, or of its one dense block."""
    mlp = model.mlp
    block = 3 * model.hidden * mlp["intermediate"]
    if mlp["kind"] != "moe":
        return block * precision.expert_bytes, 0.0
    return block * (mlp["experts"] + mlp["shared"]) * precision.expert_bytes, model.hidden * mlp[
        "experts"
    ] * _BF16
