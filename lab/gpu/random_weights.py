"""vLLM plugin for the GPU machine: load format `random` fills every weight with finite, spread-out random values.

vLLM's own `dummy` format draws from +-1e-3, which rounds most fp8 values to zero: the router then sends every token
to the same few experts, and a mixture of experts looks faster than it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

TILE = 1 << 24
"""Values drawn once per tensor and repeated: drawing 119 billion would take longer than a download."""

ACTIVATION_SCALE = 6 / 448  # about six standard deviations of a normed activation fit into e4m3
WEIGHT_STD = 0.02


def _repeat(flat: torch.Tensor, tile: torch.Tensor) -> None:
    for start in range(0, flat.numel(), tile.numel()):
        piece = flat[start : start + tile.numel()]
        piece.copy_(tile[: piece.numel()])


def _fill(name: str, weight: torch.Tensor) -> None:
    import torch

    flat = weight.data.view(-1)
    count = min(TILE, flat.numel())
    if weight.dtype == torch.uint8:  # two packed 4-bit values each
        _repeat(flat, torch.randint(0, 256, (count,), device=flat.device, dtype=torch.uint8))
    elif not torch.is_floating_point(weight):
        return
    elif "global_scale" in name or "norm" in name:
        flat.fill_(1.0)
    elif "input_scale" in name:
        flat.fill_(ACTIVATION_SCALE)
    elif "scale" in name:
        flat.fill_(WEIGHT_STD)
    else:
        quantised = torch.finfo(weight.dtype).bits < 16
        std = 1.0 if quantised or "embed_tokens" in name else WEIGHT_STD
        drawn = torch.randn(count, device=flat.device, dtype=torch.float32) * std
        _repeat(flat, drawn.to(flat.dtype))


def register() -> None:
    """Called by vLLM in each of its processes."""
    import torch
    from vllm.model_executor.model_loader import register_model_loader
    from vllm.model_executor.model_loader.dummy_loader import DummyModelLoader

    class RandomLoader(DummyModelLoader):
        @torch.no_grad()
        def load_weights(self, model, model_config) -> None:
            torch.manual_seed(0)
            for name, weight in model.state_dict().items():
                _fill(name, weight)

    try:
        register_model_loader("random")(RandomLoader)
    except ValueError:  # registered already in this process
        return
