"""Published models without weights: their configuration, and files that hold the headers of their weights only.

`pulumi-vllm model add` reads no more. Names and shapes of the tensors are those of the published files, derived from
the configuration. A download of such a model is refused.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from math import prod
from typing import TYPE_CHECKING, Any

from pulumi_vllm_local.hub.tree import TreeFile, read_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SHARD_BYTES = 5_000_000_000
BYTES = {"BF16": 2, "U8": 1, "F8_E4M3": 1, "F32": 4}
_BLOCK = 128  # side of the square of weights that shares a scale
_TEMPLATE = "{{# Placeholder of a chat template, which knows: {features}. #}}\n"

Shape = tuple[str, tuple[int, ...]]


@dataclass
class HeaderRepository:
    """A repository of the hub whose files of weights end after their header."""

    name: str
    revision: str
    folder: Path
    license: str
    config: dict[str, Any]
    template: str
    sizes: dict[str, int] = field(default_factory=dict)

    @cached_property
    def files(self) -> tuple[TreeFile, ...]:
        """The files. Those of weights are listed with the size that they would have."""
        if not self.folder.is_dir():
            self._write()
        sizes = json.loads((self.folder.parent / f"{self.folder.name}.json").read_text(encoding="utf-8"))
        return tuple(
            TreeFile(one.path, sizes.get(one.path, one.size), one.sha256, one.git_sha1, one.lfs)
            for one in read_tree(self.folder)
        )

    def file(self, path: str) -> TreeFile | None:
        """Return the file with a path, or None."""
        return next((file for file in self.files if file.path == path), None)

    def _write(self) -> None:
        self.folder.mkdir(parents=True)
        (self.folder / "config.json").write_text(json.dumps(self.config, indent=1), encoding="utf-8")
        text = _TEMPLATE.format(features=self.template or "nothing else")
        (self.folder / "chat_template.jinja").write_text(text, encoding="utf-8")
        shards, sizes = list(_shards(tensors(self.config))), {}
        weight_map: dict[str, str] = {}
        for number, shard in enumerate(shards, 1):
            name = f"model-{number:05}-of-{len(shards):05}.safetensors"
            header, size = _header(shard)
            (self.folder / name).write_bytes(header)
            sizes[name] = size
            weight_map |= dict.fromkeys(shard, name)
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        (self.folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
        (self.folder.parent / f"{self.folder.name}.json").write_text(json.dumps(sizes), encoding="utf-8")


def repositories(cache: Path) -> tuple[HeaderRepository, ...]:
    """Return all of them. Their files are written when somebody asks for them."""
    text = resources.files(__package__).joinpath("published_models.json").read_text(encoding="utf-8")
    code = resources.files(__package__).joinpath("published_models.py").read_bytes()
    key = hashlib.sha256(text.encode() + code).hexdigest()[:12]
    return tuple(
        HeaderRepository(
            name=one["repository"],
            revision=one["revision"],
            folder=cache / f"headers-{key}" / one["repository"].replace("/", "--"),
            license=one["license"],
            config=one["config"],
            template=one["template"],
        )
        for one in json.loads(text)["models"]
    )


def _shards(found: dict[str, Shape]) -> Iterator[dict[str, Shape]]:
    shard: dict[str, Shape] = {}
    size = 0
    for name, (dtype, shape) in found.items():
        each = prod(shape) * BYTES[dtype]
        if shard and size + each > _SHARD_BYTES:
            yield shard
            shard, size = {}, 0
        shard[name] = (dtype, shape)
        size += each
    yield shard


def _header(shard: dict[str, Shape]) -> tuple[bytes, int]:
    """The header of a safetensors file, and the size that the file would have."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, shape) in shard.items():
        end = at + prod(shape) * BYTES[dtype]
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    header = struct.pack("<Q", len(text)) + text
    return header, len(header) + at


def tensors(config: dict[str, Any]) -> dict[str, Shape]:
    """Return the tensors of a model by name, as its published files name and shape them."""
    text = config.get("text_config", config)
    prefix = "language_model.model" if "text_config" in config else "model"
    hidden, vocabulary = text["hidden_size"], text.get("vocab_size", 262_208)  # Gemma 3's own default
    out: dict[str, Shape] = {f"{prefix}.embed_tokens.weight": ("BF16", (vocabulary, hidden))}
    for layer in range(text["num_hidden_layers"]):
        out |= _layer(text, f"{prefix}.layers.{layer}", layer)
    out[f"{prefix}.norm.weight"] = ("BF16", (hidden,))
    if text["model_type"] != "gemma3_text":  # its output layer is the embedding
        out["lm_head.weight"] = ("BF16", (vocabulary, hidden))
    for layer in range(text.get("num_nextn_predict_layers", 0)):
        name = f"{prefix}.layers.{text['num_hidden_layers'] + layer}"
        out |= _layer(text, name, text["num_hidden_layers"])
        out |= {
            f"{name}.{one}": ("BF16", (vocabulary, hidden))
            for one in ("embed_tokens.weight", "shared_head.head.weight")
        }
        out[f"{name}.eh_proj.weight"] = ("BF16", (hidden, 2 * hidden))
    if text["model_type"] == "qwen3_next":
        out |= _layer(text, "mtp.layers.0", 3)
        out["mtp.fc.weight"] = ("BF16", (hidden, 2 * hidden))
    return out | _tower(config)


def _layer(text: dict[str, Any], name: str, number: int) -> dict[str, Shape]:
    hidden = text["hidden_size"]
    norms = ["input_layernorm", "post_attention_layernorm"]
    if text["model_type"] == "gemma3_text":
        norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
    out: dict[str, Shape] = {f"{name}.{norm}.weight": ("BF16", (hidden,)) for norm in norms}
    interval = text.get("full_attention_interval")
    if interval and (number + 1) % interval:
        out |= _linear(text, f"{name}.linear_attn")
    else:
        out |= (
            _latent(text, f"{name}.self_attn")
            if "kv_lora_rank" in text
            else _grouped(text, f"{name}.self_attn")
        )
    mixture = any(key in text for key in ("num_experts", "num_local_experts", "n_routed_experts"))
    if mixture and number >= text.get("first_k_dense_replace", 0):
        return out | _experts(text, f"{name}.mlp")
    return out | _block(f"{name}.mlp", hidden, text["intermediate_size"], text)


def _matrix(name: str, rows: int, columns: int, text: dict[str, Any]) -> dict[str, Shape]:
    """A weight, with its scales if the model is quantised to 8 bits."""
    method = text.get("quantization_config", {}).get("quant_method")
    if method == "compressed-tensors":  # a scale per row
        return {f"{name}.weight": ("F8_E4M3", (rows, columns)), f"{name}.weight_scale": ("BF16", (rows, 1))}
    if method != "fp8":
        return {f"{name}.weight": ("BF16", (rows, columns))}
    scales = (-(-rows // _BLOCK), -(-columns // _BLOCK))
    return {f"{name}.weight": ("F8_E4M3", (rows, columns)), f"{name}.weight_scale_inv": ("F32", scales)}


def _block(name: str, hidden: int, width: int, text: dict[str, Any]) -> dict[str, Shape]:
    out = _matrix(f"{name}.down_proj", hidden, width, text)
    for part in ("gate_proj", "up_proj"):
        out |= _matrix(f"{name}.{part}", width, hidden, text)
    return out


def _grouped(text: dict[str, Any], name: str) -> dict[str, Shape]:
    hidden, heads = text["hidden_size"], text["num_attention_heads"]
    size = text.get("head_dim", hidden // heads)
    kv, kind = text["num_key_value_heads"] * size, text["model_type"]
    queries = heads * size * (2 if kind == "qwen3_next" else 1)
    out = _matrix(f"{name}.o_proj", hidden, heads * size, text)
    for part, rows in (("q_proj", queries), ("k_proj", kv), ("v_proj", kv)):
        out |= _matrix(f"{name}.{part}", rows, hidden, text)
        if kind in {"qwen2", "qwen2_5_vl", "gpt_oss"}:
            out[f"{name}.{part}.bias"] = ("BF16", (rows,))
    if kind == "gpt_oss":
        out |= {f"{name}.o_proj.bias": ("BF16", (hidden,)), f"{name}.sinks": ("BF16", (heads,))}
    if kind in {"qwen3_moe", "qwen3_next", "gemma3_text"}:
        out |= {f"{name}.{part}.weight": ("BF16", (size,)) for part in ("q_norm", "k_norm")}
    return out


def _latent(text: dict[str, Any], name: str) -> dict[str, Shape]:
    hidden, heads = text["hidden_size"], text["num_attention_heads"]
    rank, latent, rope = text["q_lora_rank"], text["kv_lora_rank"], text["qk_rope_head_dim"]
    nope, value = text["qk_nope_head_dim"], text["v_head_dim"]
    out: dict[str, Shape] = {
        f"{name}.q_a_layernorm.weight": ("BF16", (rank,)),
        f"{name}.kv_a_layernorm.weight": ("BF16", (latent,)),
    }
    for part, rows, columns in (
        ("q_a_proj", rank, hidden),
        ("q_b_proj", heads * (nope + rope), rank),
        ("kv_a_proj_with_mqa", latent + rope, hidden),
        ("kv_b_proj", heads * (nope + value), latent),
        ("o_proj", hidden, heads * value),
    ):
        out |= _matrix(f"{name}.{part}", rows, columns, text)
    return out


def _linear(text: dict[str, Any], name: str) -> dict[str, Shape]:
    hidden, values = text["hidden_size"], text["linear_num_value_heads"]
    keys = text["linear_num_key_heads"] * text["linear_key_head_dim"]
    wide = values * text["linear_value_head_dim"]
    return {
        f"{name}.in_proj_qkvz.weight": ("BF16", (2 * keys + 2 * wide, hidden)),
        f"{name}.in_proj_ba.weight": ("BF16", (2 * values, hidden)),
        f"{name}.conv1d.weight": ("BF16", (2 * keys + wide, 1, text["linear_conv_kernel_dim"])),
        f"{name}.out_proj.weight": ("BF16", (hidden, wide)),
        f"{name}.norm.weight": ("BF16", (text["linear_value_head_dim"],)),
        f"{name}.A_log": ("BF16", (values,)),
        f"{name}.dt_bias": ("BF16", (values,)),
    }


def _experts(text: dict[str, Any], name: str) -> dict[str, Shape]:
    hidden = text["hidden_size"]
    if text["model_type"] == "gpt_oss":
        return _packed_experts(text, name)
    count = text.get("num_experts") or text["n_routed_experts"]
    out: dict[str, Shape] = {f"{name}.gate.weight": ("BF16", (count, hidden))}
    for expert in range(count):
        out |= _block(f"{name}.experts.{expert}", hidden, text["moe_intermediate_size"], text)
    if text.get("n_shared_experts"):
        out[f"{name}.gate.e_score_correction_bias"] = ("F32", (count,))
        width = text["n_shared_experts"] * text["moe_intermediate_size"]
        out |= _block(f"{name}.shared_experts", hidden, width, text)
    if text.get("shared_expert_intermediate_size"):
        out |= _block(f"{name}.shared_expert", hidden, text["shared_expert_intermediate_size"], text)
        out[f"{name}.shared_expert_gate.weight"] = ("BF16", (1, hidden))
    return out


def _packed_experts(text: dict[str, Any], name: str) -> dict[str, Shape]:
    """Experts of 4 bits: blocks of 32 weights in 16 bytes, with one scale each."""
    count, hidden, width = text["num_local_experts"], text["hidden_size"], text["intermediate_size"]
    out: dict[str, Shape] = {
        f"{name}.router.weight": ("BF16", (count, hidden)),
        f"{name}.router.bias": ("BF16", (count,)),
    }
    for part, rows, columns in (("gate_up_proj", 2 * width, hidden), ("down_proj", hidden, width)):
        out |= {
            f"{name}.experts.{part}_blocks": ("U8", (count, rows, columns // 32, 16)),
            f"{name}.experts.{part}_scales": ("U8", (count, rows, columns // 32)),
            f"{name}.experts.{part}_bias": ("BF16", (count, rows)),
        }
    return out


def _tower(config: dict[str, Any]) -> dict[str, Shape]:
    vision = config.get("vision_config")
    if not vision:
        return {}
    if config["model_type"] == "gemma3":
        return _siglip(vision, config["text_config"]["hidden_size"])
    width, inner, patch = vision["hidden_size"], vision["intermediate_size"], vision["patch_size"]
    out: dict[str, Shape] = {
        "visual.patch_embed.proj.weight": ("BF16", (width, 3, vision["temporal_patch_size"], patch, patch)),
        "visual.merger.ln_q.weight": ("BF16", (width,)),
    }
    for layer in range(vision["depth"]):
        name = f"visual.blocks.{layer}"
        out |= _biased(f"{name}.attn.qkv", 3 * width, width) | _biased(f"{name}.attn.proj", width, width)
        out |= _biased(f"{name}.mlp.gate_proj", inner, width) | _biased(f"{name}.mlp.up_proj", inner, width)
        out |= _biased(f"{name}.mlp.down_proj", width, inner)
        out |= {f"{name}.{norm}.weight": ("BF16", (width,)) for norm in ("norm1", "norm2")}
    merged = width * vision["spatial_merge_size"] ** 2
    return (
        out
        | _biased("visual.merger.mlp.0", merged, merged)
        | _biased("visual.merger.mlp.2", vision["out_hidden_size"], merged)
    )


def _siglip(vision: dict[str, Any], hidden: int) -> dict[str, Shape]:
    width, inner, patch = vision["hidden_size"], vision["intermediate_size"], vision["patch_size"]
    name = "vision_tower.vision_model"
    out: dict[str, Shape] = {
        f"{name}.embeddings.patch_embedding.weight": ("BF16", (width, 3, patch, patch)),
        f"{name}.embeddings.position_embedding.weight": (
            "BF16",
            ((vision["image_size"] // patch) ** 2, width),
        ),
        "multi_modal_projector.mm_input_projection_weight": ("BF16", (width, hidden)),
        "multi_modal_projector.mm_soft_emb_norm.weight": ("BF16", (width,)),
    }
    for number in range(vision["num_hidden_layers"]):
        layer = f"{name}.encoder.layers.{number}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            out |= _biased(f"{layer}.self_attn.{part}", width, width)
        out |= _biased(f"{layer}.mlp.fc1", inner, width) | _biased(f"{layer}.mlp.fc2", width, inner)
        out |= {f"{layer}.{norm}.weight": ("BF16", (width,)) for norm in ("layer_norm1", "layer_norm2")}
    return out


def _biased(name: str, rows: int, columns: int) -> dict[str, Shape]:
    return {f"{name}.weight": ("BF16", (rows, columns)), f"{name}.bias": ("BF16", (rows,))}
