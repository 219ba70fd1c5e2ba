"""Groups of a model's tensors: what each is, by its name in the published files, and how vLLM divides it over GPUs.

The names are those of Hugging Face's and Mistral's files; the divisions are those of vLLM's layers (0.26.0): columns
and rows of projections, rows of the vocabulary, and each expert's width are divided, everything else is replicated.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DIVIDED: Final = "divided by tensor parallelism"
BY_KV_HEADS: Final = "divided, but a GPU holds at least one KV head"
REPLICATED: Final = "on every GPU"
WITH_IMAGES: Final = "divided, and loaded only where images are accepted"
NOT_LOADED: Final = "not loaded"

GROUPS: Final = {
    "embedding": DIVIDED,
    "head": DIVIDED,
    "attention": DIVIDED,
    "kv": BY_KV_HEADS,
    "latent": REPLICATED,
    "linear": DIVIDED,
    "mlp": DIVIDED,
    "experts": DIVIDED,
    "router": REPLICATED,
    "norms": REPLICATED,
    "vision": WITH_IMAGES,
    "prediction": NOT_LOADED,
    "other": REPLICATED,
}
"""Group → how it is divided. `linear` is linear attention, `prediction` are layers that draft tokens."""

_VISION: Final = (
    "visual|vision_tower|vision_model|vision_encoder|multi_modal_projector|mm_projector|patch_merger|"
    "vision_language_adapter|pre_mm_projector_norm"
)
_LATENT: Final = (
    "q_a_proj|kv_a_proj_with_mqa|wq_a|wkv_a_with_mqa|q_a_layernorm|kv_a_layernorm|q_a_norm|kv_a_norm"
)
_PATTERNS: Final = (
    ("vision", rf"(^|\.)({_VISION})\b"),
    ("prediction", r"(^|\.)mtp\b"),
    ("experts", r"\.(experts|shared_experts?)\."),
    (
        "router",
        r"\.(mlp|feed_forward|block_sparse_moe)\.(gate|router)\.|\.shared_expert_gate\b|layers\.\d+\.gate\.",
    ),
    ("linear", r"\.(linear_attn|mamba|mixer)\."),
    ("latent", rf"\.({_LATENT})\b"),
    ("norms", r"norm\d?\b|\.input_layernorm\b"),
    ("kv", r"\.(k_proj|v_proj|wk|wv)\b"),
    ("attention", r"\.(self_attn|attention|attn)\."),
    ("mlp", r"\.(mlp|feed_forward)\."),
    ("embedding", r"embed_tokens|tok_embeddings|\.wte\b"),
    ("head", r"(^|\.)(lm_head|output)\."),
)
_RULES: Final = tuple((group, re.compile(pattern)) for group, pattern in _PATTERNS)
_LAYER: Final = re.compile(r"(?:^|\.)layers\.(\d+)\.")


def group_of(name: str, layers: int | None = None) -> str:
    """The group of a tensor by its name. A layer beyond the model's `layers` drafts tokens, as DeepSeek's 61st does."""
    for group, pattern in _RULES:
        if group == "vision" and pattern.search(name):
            return group
        found = _LAYER.search(name)
        if layers is not None and found is not None and int(found[1]) >= layers and "vision" not in name:
            return "prediction"
        if pattern.search(name):
            return group
    return "other"


def bytes_by_group(tensors: Iterable[tuple[str, int]], layers: int | None = None) -> dict[str, int]:
    """Bytes by group, in the order of GROUPS, of tensors given as name and bytes."""
    found = dict.fromkeys(GROUPS, 0)
    for name, size in tensors:
        found[group_of(name, layers)] += size
    return {group: size for group, size in found.items() if size}


def on_one_gpu(tensors: Mapping[str, int], parallel: int, kv_heads: int | None, *, images: bool) -> float:
    """Bytes that one GPU holds of these groups."""
    total = 0.0
    for group, size in tensors.items():
        division = GROUPS[group]
        if division == NOT_LOADED or (division == WITH_IMAGES and not images):
            continue
        parts = {REPLICATED: 1, BY_KV_HEADS: min(parallel, kv_heads or parallel)}.get(division, parallel)
        total += size / parts
    return total
