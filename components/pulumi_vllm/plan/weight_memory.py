"""Memory of weights and KV cache on one GPU, from the exact bytes of the tensors or from published dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pulumi_vllm.plan import tensor_groups
from pulumi_vllm.plan.memory_settings import BF16

if TYPE_CHECKING:
    from pulumi_vllm.plan.catalogue import Dimensions, Precision
    from pulumi_vllm.plan.memory_settings import MemorySettings

MXFP4: Final = "mxfp4"

_PADDED: Final = {"8": (256, 128), "9": (256, 64), "10": (256, 256), "12": (256, 128)}
"""Compute capability → multiples to which vLLM's kernels for MXFP4 experts pad hidden size and width.

Marlin, TRT-LLM: `mxfp4_round_up_hidden_size_and_intermediate_size` of 0.26.0. Triton on Hopper: its loaded weights of
gpt-oss-120b, 64.38 GiB (vllm-project/vllm issue 33155).
"""

_NEARLY_EQUAL = 1.5
"""Kinds of layers whose numbers differ by less share the larger number in the KV cache."""


def weight_bytes(
    model: Dimensions,
    precision: Precision,
    tensor_parallel: int,
    *,
    vision: bool,
    capability: str | None = None,
) -> float:
    """Weights on one GPU: its share of the divided part, and all of the replicated part.

    `capability` is the GPU's compute capability, by which kernels pad the experts of MXFP4.
    """
    rope = model.rope_positions * _rope_dim(model) * BF16
    padding = _padding(model, precision, tensor_parallel, capability)
    if precision.tensors:
        padded = dict(precision.tensors)
        padded["experts"] = round(padded.get("experts", 0) * padding)
        kv_heads = model.attention.get("kv_heads")
        exact: float = tensor_groups.on_one_gpu(padded, tensor_parallel, kv_heads, images=vision)
        return float(exact + _absorbed(model, precision) * model.layers / tensor_parallel + rope)
    attention, kv, replicated = _attention_bytes(model, precision)
    linear = model.attention.get("linear", {})
    dense = model.mlp.get("dense_layers", 0)
    experts, router = _mlp_bytes(model, precision)
    first = 3 * model.hidden * model.mlp.get("dense_intermediate", 0) * precision.linear_bytes
    norms = 2 * model.hidden * BF16
    vocabulary = model.vocabulary * model.hidden * BF16 * (1 if model.tied_embeddings else 2)
    tower = tower_bytes(model, tensor_parallel) if vision else 0
    full = model.layers - linear.get("layers", 0)
    mixed = model.layers - dense
    split = (
        full * (attention + _absorbed(model, precision))
        + mixed * experts * padding
        + dense * first
        + vocabulary
    )
    split += linear.get("layers", 0) * _linear_bytes(model, precision)
    split += (
        full * kv * tensor_parallel / min(tensor_parallel, model.attention.get("kv_heads", tensor_parallel))
    )
    return float(
        split / tensor_parallel + tower + full * replicated + mixed * router + model.layers * norms + rope
    )


def tower_bytes(model: Dimensions, tensor_parallel: int) -> float:
    """The vision tower's share on one GPU. It has 16 bits per weight in every precision."""
    return float(model.vision.get("parameters", 0) * BF16 / tensor_parallel)


def kv_bytes_per_token(model: Dimensions, tensor_parallel: int, cache_bytes: int = BF16) -> int:
    """KV cache of one token on one GPU, in the layers that keep every token.

    MLA replicates the latent on every GPU; GQA shards heads, at least one each.
    """
    return int(_cached_layers(model)["full"] * _layer_cache(model, tensor_parallel, cache_bytes))


def kv_bytes_per_request(model: Dimensions, settings: MemorySettings) -> int:
    """KV cache of one request on one GPU that does not grow with its tokens: sliding windows and recurrent states.

    A window holds its tokens and those of two steps in flight (SlidingWindowSpec of 0.26.0, with asynchronous
    scheduling). A linear layer has two states, because prefix caching keeps one beside the running one (MambaSpec).
    """
    window, linear = model.attention.get("window", {}), model.attention.get("linear", {})
    layers, total = _cached_layers(model), 0
    if window:
        tokens = min(window["tokens"] - 1 + 2 * settings.batched_tokens, settings.context)
        layer = _layer_cache(model, settings.tensor_parallel, settings.cache_bytes)
        total += layers["window"] * tokens * layer
    if linear:
        keys, values = linear["key_heads"] * linear["key_dim"], linear["value_heads"] * linear["value_dim"]
        state = values * linear["key_dim"] * linear["state_bytes"]
        recent = (2 * keys + values) * (linear["convolution"] - 1) * BF16
        total += 2 * layers["linear"] * (state + recent) // settings.tensor_parallel
    return total


def _cached_layers(model: Dimensions) -> dict[str, int]:
    """Layers for which the KV cache has room, by kind: whole groups of one size, of which the last is padded.

    A group has as many layers as the kind with the fewest, or with the most if that is less than half as many again
    (kv_cache_planning of 0.33.0).
    """
    kinds = {name: int(model.attention.get(name, {}).get("layers", 0)) for name in ("window", "linear")}
    kinds["full"] = model.layers - sum(kinds.values())
    present = [layers for layers in kinds.values() if layers]
    fewest, most = min(present), max(present)
    group = most if most < _NEARLY_EQUAL * fewest else fewest
    return {name: -(-layers // group) * group for name, layers in kinds.items()}


def _layer_cache(model: Dimensions, tensor_parallel: int, cache_bytes: int) -> int:
    attention = model.attention
    if attention["kind"] == "mla":
        return int((attention["kv_lora_rank"] + attention["qk_rope_head_dim"]) * cache_bytes)
    heads = -(-attention["kv_heads"] // tensor_parallel)
    return int(2 * heads * attention["head_dim"] * cache_bytes)


def _rope_dim(model: Dimensions) -> int:
    attention = model.attention
    return int(attention.get("qk_rope_head_dim") or attention.get("rope_dim") or attention["head_dim"])


def _absorbed(model: Dimensions, precision: Precision) -> float:
    """The 16-bit copy that MLA keeps of one layer's up-projection beside quantised weights."""
    attention = model.attention
    if attention["kind"] != "mla" or precision.linear_bytes >= BF16:
        return 0.0
    width = attention["qk_nope_head_dim"] + attention["v_head_dim"]
    return float(attention["kv_lora_rank"] * model.heads * width * BF16)


def _attention_bytes(model: Dimensions, precision: Precision) -> tuple[float, float, float]:
    """One layer's attention: bytes that are divided, those of keys and values, and replicated ones."""
    attention, each = model.attention, precision.linear_bytes
    if attention["kind"] != "mla":
        queries = attention["head_dim"] * model.heads * (3 if attention.get("doubled_queries") else 2)
        kv = attention["head_dim"] * 2 * attention["kv_heads"]
        return model.hidden * queries * each, model.hidden * kv * each, 0.0
    nope, rope, v = attention["qk_nope_head_dim"], attention["qk_rope_head_dim"], attention["v_head_dim"]
    q_rank, kv_rank = attention["q_lora_rank"], attention["kv_lora_rank"]
    kv_b = kv_rank * model.heads * (nope + v)
    queries = (q_rank or model.hidden) * model.heads * (nope + rope)
    sharded = (queries + kv_b + model.heads * v * model.hidden) * each
    replicated = model.hidden * (q_rank + kv_rank + rope) * each + (q_rank + kv_rank) * BF16
    return sharded, 0.0, replicated


def _linear_bytes(model: Dimensions, precision: Precision) -> float:
    """One layer of linear attention (a gated delta net): projections and convolution."""
    linear = model.attention.get("linear")
    if linear is None:
        return 0.0
    keys, values = linear["key_heads"] * linear["key_dim"], linear["value_heads"] * linear["value_dim"]
    projections = model.hidden * (2 * keys + 2 * values + values) * precision.linear_bytes
    decays = model.hidden * 2 * linear["value_heads"] * BF16
    return float(projections + decays + (2 * keys + values) * linear["convolution"] * BF16)


def _mlp_bytes(model: Dimensions, precision: Precision) -> tuple[float, float]:
    """Sharded and replicated bytes of one layer's experts, or of its dense block."""
    mlp = model.mlp
    block = 3 * model.hidden * mlp["intermediate"]
    if mlp["kind"] != "moe":
        return block * precision.expert_bytes, 0.0
    shared = 3 * model.hidden * mlp.get("shared_intermediate", mlp["intermediate"] * mlp["shared"])
    return (block * mlp["experts"] + shared) * precision.expert_bytes, model.hidden * mlp["experts"] * BF16


def _padding(model: Dimensions, precision: Precision, tensor_parallel: int, capability: str | None) -> float:
    """By how much kernels enlarge the experts."""
    if precision.name != MXFP4 or model.mlp["kind"] != "moe" or capability is None:
        return 1.0
    hidden, width = _PADDED.get(capability.partition(".")[0], (1, 1))
    own = model.mlp["intermediate"] // tensor_parallel
    padded = -(-model.hidden // hidden) * hidden * -(-own // width) * width
    return float(padded / (model.hidden * own))
