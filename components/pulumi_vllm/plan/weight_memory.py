"""Memory of weights and KV cache on one GPU, from the model's published dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulumi_vllm.plan.memory_settings import BF16

if TYPE_CHECKING:
    from pulumi_vllm.plan.catalogue import Dimensions, Precision


def weight_bytes(model: Dimensions, precision: Precision, tensor_parallel: int, *, vision: bool) -> float:
    """Weights on one GPU: its share of the sharded part, and all of the replicated part."""
    sharded, replicated = _attention_bytes(model, precision)
    experts, router = _mlp_bytes(model, precision)
    norms = 2 * model.hidden * BF16
    vocabulary = model.vocabulary * model.hidden * BF16 * (1 if model.tied_embeddings else 2)
    rope = model.rope_positions * _rope_dim(model) * BF16
    tower = tower_bytes(model, tensor_parallel) if vision else 0
    split = model.layers * (sharded + experts) + vocabulary
    return split / tensor_parallel + tower + model.layers * (replicated + router + norms) + rope


def tower_bytes(model: Dimensions, tensor_parallel: int) -> float:
    """The vision tower's share on one GPU. It has 16 bits per weight in every precision."""
    return float(model.vision.get("parameters", 0) * BF16 / tensor_parallel)


def kv_bytes_per_token(model: Dimensions, tensor_parallel: int, cache_bytes: int = BF16) -> int:
    """KV cache of one token on one GPU. MLA replicates the latent on every GPU; GQA shards heads, at least one each."""
    attention = model.attention
    if attention["kind"] == "mla":
        return int(model.layers * (attention["kv_lora_rank"] + attention["qk_rope_head_dim"]) * cache_bytes)
    heads = -(-attention["kv_heads"] // tensor_parallel)
    return int(model.layers * 2 * heads * attention["head_dim"] * cache_bytes)


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
    absorbed = kv_b * BF16 if each < BF16 else 0  # a 16-bit copy is kept beside quantised weights
    replicated = model.hidden * (q_rank + kv_rank + rope) * each + (q_rank + kv_rank) * BF16
    return sharded + absorbed, replicated


def _mlp_bytes(model: Dimensions, precision: Precision) -> tuple[float, float]:
    """Sharded and replicated bytes of one layer's experts, or of its dense block."""
    mlp = model.mlp
    block = 3 * model.hidden * mlp["intermediate"]
    if mlp["kind"] != "moe":
        return block * precision.expert_bytes, 0.0
    return block * (mlp["experts"] + mlp["shared"]) * precision.expert_bytes, model.hidden * mlp[
        "experts"
    ] * BF16
