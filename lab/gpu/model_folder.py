"""Writes a weightless model folder: the published dimensions of Mistral Small 4 and a v15 tokenizer.

usage: model_folder.py DIR fp8|nvfp4
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

DIMENSIONS: dict[str, Any] = {
    "dim": 4096,
    "n_layers": 36,
    "head_dim": 128,
    "hidden_dim": 12288,
    "n_heads": 32,
    "n_kv_heads": 32,
    "rope_theta": 10000.0,
    "norm_eps": 1e-6,
    "vocab_size": 131072,
    "tied_embeddings": False,
    "max_position_embeddings": 1048576,
    "max_seq_len": 1048576,
    "q_lora_rank": 1024,
    "kv_lora_rank": 256,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 64,
    "v_head_dim": 128,
    "llama_4_scaling": {"original_max_position_embeddings": 8192, "beta": 0.1},
    "yarn": {
        "original_max_position_embeddings": 8192,
        "factor": 128,
        "apply_scale": False,
        "beta": 32,
        "alpha": 1,
    },
    "moe": {
        "route_every_n": 1,
        "first_k_dense_replace": 0,
        "num_experts": 128,
        "num_experts_per_tok": 4,
        "num_expert_groups": 1,
        "num_expert_groups_per_tok": 1,
        "routed_scale": 1.0,
        "expert_hidden_dim": 2048,
        "num_shared_experts": 1,
    },
    # 428,472,320 parameters with the projector, as published; 16 bit in every precision.
    "vision_encoder": {
        "hidden_size": 1024,
        "num_channels": 3,
        "image_size": 1540,
        "max_image_size": 1540,
        "patch_size": 14,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "rope_theta": 10000.0,
        "adapter_bias": False,
        "mm_projector_id": "patch_merge",
        "spatial_merge_size": 2,
        "add_pre_mm_projector_layer_norm": True,
        "image_token_id": 10,
        "image_break_token_id": 12,
        "image_end_token_id": 13,
    },
}

BLOCK: dict[str, Any] = {
    "num_bits": 4,
    "type": "float",
    "strategy": "tensor_group",
    "group_size": 16,
    "symmetric": True,
    "dynamic": False,
}

QUANTISATION: dict[str, dict[str, Any]] = {
    "fp8": {"qformat_weight": "fp8_e4m3", "qscheme_act": "TENSOR"},
    "nvfp4": {
        "quant_method": "compressed-tensors",
        "format": "nvfp4-pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": BLOCK,
                "input_activations": {**BLOCK, "dynamic": "local"},
                "output_activations": None,
            }
        },
        # Only the experts are packed: that is what makes the published 70.8 GB.
        "ignore": [
            "lm_head",
            "output",
            "re:.*gate$",
            "re:.*self_attn.*",
            "re:.*attention.*",
            "re:.*vision.*",
        ],
    },
}


def parameters(precision: str) -> dict[str, Any]:
    """Text of params.json."""
    return {**DIMENSIONS, "quantization": QUANTISATION[precision]}


def tokenizer() -> dict[str, Any]:
    """The tokenizer that mistral_common carries, raised to version 15 so that chat and reasoning_effort work."""
    import mistral_common
    from mistral_common.tokens.tokenizers.base import SpecialTokens
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    data = json.loads((Path(mistral_common.__file__).parent / "data/tekken_240911.json").read_text())
    special = [dict(token) for token in Tekkenizer.DEPRECATED_SPECIAL_TOKENS]
    known = {token["token_str"] for token in special}
    for token in SpecialTokens:
        if token.value not in known:
            special.append({"rank": len(special), "token_str": token.value, "is_control": True})
    data["config"]["version"] = "v15"
    data["special_tokens"] = special
    data["image"] = {"image_patch_size": 14, "max_image_size": 1540, "spatial_merge_size": 2}
    data["model_settings_builder"] = {
        "reasoning_effort": {
            "type": "enum",
            "values": ["none", "high"],
            "accepts_none": True,
            "default": "none",
        }
    }
    return data


def write(folder: Path, precision: str) -> None:
    """Write both files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.json").write_text(json.dumps(parameters(precision), indent=1))
    (folder / "tekken.json").write_text(json.dumps(tokenizer()))


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2])
