"""Peak activation of one step: text, images and the sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pulumi_vllm.plan.memory_settings import BF16, GIB

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pulumi_vllm.plan.catalogue import Dimensions
    from pulumi_vllm.plan.memory_settings import MemorySettings


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
        return float(BF16 * (mask + patches * stream * tower["hidden"] + max(attention, mlp)))

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
    return float(BF16 * (settings.batched_tokens * (block + stream) + cached))


def sampler_bytes(
    model: Dimensions, settings: MemorySettings, known: Mapping[str, float], *, images: bool
) -> float:
    """Peak of the sampler as vLLM profiles it: a row of the vocabulary per sequence, beside a batch's hidden states."""
    rows = settings.sequences * model.vocabulary * known["bytes_per_entry"]
    batch = settings.batched_tokens * model.hidden * BF16 * known["streams"]
    return float(rows + batch + images * known["images_gib"] * GIB)
