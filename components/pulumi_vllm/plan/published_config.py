"""Turns what a model's repository publishes into the content of a model file: dimensions, precision, flags, unknowns.

It reads config.json of Hugging Face's format and params.json of Mistral's, and the tensors of the files' headers.
A network that no memory formula covers is refused, because its file would let a plan say that it fits.
"""

from __future__ import annotations

import functools
import json
import pathlib
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any, Final

from pulumi_vllm.plan import tensor_groups
from pulumi_vllm.plan.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_ARCHITECTURES = pathlib.Path(__file__).parent / "data" / "architectures.json"

_NO_FORMULA: Final = {
    **dict.fromkeys(
        ("mamba_d_state", "ssm_state_size", "state_size", "ssm_cfg", "mamba_num_heads"), "state-space layers"
    ),
    "index_topk": "a sparse index beside the attention",
    "linear_attn_config": "linear attention of another kind",
    "compress_ratios": "a compressed cache",
    "attention_chunk_size": "attention in chunks",
    "cross_attention_layers": "cross attention",
    "is_encoder_decoder": "an encoder",
}
"""Key of config.json → what such a network has that no memory formula covers."""

_DEFAULTS: Final = {
    "gemma3_text": {
        "max_position_embeddings": 131072,
        "sliding_window_pattern": 6,
        "tie_word_embeddings": True,
    },
}
"""Model type → what its configuration class has and its config.json leaves out (transformers 5.16)."""

_MISTRAL: Final = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "hidden_dim": "intermediate_size",
    "tied_embeddings": "tie_word_embeddings",
    "vision_encoder": "vision_config",
}
"""Key of params.json → that of config.json."""

_MISTRAL_EXPERTS: Final = {
    "num_experts": "n_routed_experts",
    "num_experts_per_tok": "num_experts_per_tok",
    "num_shared_experts": "n_shared_experts",
    "expert_hidden_dim": "moe_intermediate_size",
    "first_k_dense_replace": "first_k_dense_replace",
}

_GPT_OSS_EFFORTS: Final = {"none": "low", "minimal": "low", "xhigh": "high", "max": "high"}


@dataclass(frozen=True, slots=True)
class Published:
    """What a repository publishes. `tensors` are names, shapes and bytes; `template` is the chat template's text."""

    repository: str
    revision: str
    config: Mapping[str, Any]
    mistral_format: bool
    tensors: tuple[tuple[str, tuple[int, ...], int], ...]
    download_bytes: int
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    template: str = ""
    license: str = ""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a person adds to what is published; None takes what is known of the architecture."""

    name: str | None = None
    context: int | None = None
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    thinks: str | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)


@functools.cache
def architectures() -> Mapping[str, Any]:
    """What `lab/engine/architectures.py` found in the pinned vLLM: its classes, and parsers by class."""
    found: dict[str, Any] = json.loads(_ARCHITECTURES.read_text())
    return {**found, "known": frozenset(found["known"].split())}


def model_file(published: Published, wishes: Wishes | None = None) -> dict[str, Any]:
    """The content of a model file.

    Raises:
        ConfigError: no formula covers the network, or its configuration lacks what the formulas need.
    """
    asked, unknown = wishes or Wishes(), list[str]()
    config = _like_hugging_face(published.config) if published.mistral_format else dict(published.config)
    text = {**config, **(config.get("text_config") or {})}
    text = {**_DEFAULTS.get(str(text.get("model_type")), {}), **text}
    _refuse_without_formula(text, published.repository)
    architecture = _architecture(config, published)
    dimensions = _dimensions(text, config, published, unknown)
    name, precision = _precision(text, dimensions, published)
    if architecture not in architectures()["known"]:
        unknown.append(f"vLLM {architectures()['engine']} has no class {architecture}, so it may not start")
    positions = dimensions["rope_positions"]
    context = asked.context or positions
    if asked.context is None:
        unknown.append(
            f"the vendor's context limit, for which the {positions:,} tokens of the configuration stand"
        )
    flags, thinks = _chat_flags(architecture, published, asked, unknown)
    content: dict[str, Any] = {
        "name": asked.name or published.repository.rpartition("/")[2].lower(),
        "license": published.license or "unknown",
        "architecture": architecture,
        "source": f"{published.repository} at {published.revision[:12]}: configuration and headers of the files",
        "maximum_context": context,
        "thinks": thinks,
        "dimensions": dimensions,
        "precisions": {name: precision},
        "flags": flags,
    }
    if requests := _requests(architecture, published, thinks):
        content["requests"] = requests
    if not published.license:
        unknown.append("its licence")
    return content | ({"unknown": unknown} if unknown else {})


def _like_hugging_face(params: Mapping[str, Any]) -> dict[str, Any]:
    """Params.json with the keys of config.json."""
    config = {_MISTRAL.get(key, key): value for key, value in params.items()}
    experts = params.get("moe") or {}
    config |= {_MISTRAL_EXPERTS[key]: value for key, value in experts.items() if key in _MISTRAL_EXPERTS}
    quantization = params.get("quantization") or {}
    if quantization:
        config["quantization_config"] = {
            "quant_method": str(quantization.get("qformat_weight", "")).split("_")[0]
        }
    config.setdefault("max_position_embeddings", params.get("max_seq_len"))
    config.setdefault("tie_word_embeddings", False)
    tower = bool(config.get("vision_config"))
    config["architectures"] = ["PixtralForConditionalGeneration" if tower else "MistralForCausalLM"]
    return config


def _refuse_without_formula(text: Mapping[str, Any], repository: str) -> None:
    found = sorted({what for key, what in _NO_FORMULA.items() if text.get(key)})
    if found:
        raise ConfigError(
            (
                f"{repository}: has {' and '.join(found)}, which no memory formula covers; it cannot be planned yet",
            )
        )


def _architecture(config: Mapping[str, Any], published: Published) -> str:
    names = config.get("architectures") or []
    if not names:
        raise ConfigError(
            (f"{published.repository}: its config.json names no architecture; choose another revision",)
        )
    return str(names[0])


def _dimensions(
    text: Mapping[str, Any], config: Mapping[str, Any], published: Published, unknown: list[str]
) -> dict[str, Any]:
    missing = [
        key for key in ("num_hidden_layers", "hidden_size", "num_attention_heads") if not text.get(key)
    ]
    positions = text.get("max_position_embeddings")
    if missing or not positions:
        keys = ", ".join([*missing, *([] if positions else ["max_position_embeddings"])])
        raise ConfigError(
            (f"{published.repository}: its configuration lacks {keys}; write a model file by hand",)
        )
    shapes = {name: shape for name, shape, _ in published.tensors}
    embedding = next((s for n, s in shapes.items() if tensor_groups.group_of(n) == "embedding"), None)
    tied = not any(tensor_groups.group_of(name) == "head" for name in shapes)
    found = {
        "layers": text["num_hidden_layers"],
        "hidden": text["hidden_size"],
        "heads": text["num_attention_heads"],
        "vocabulary": embedding[0] if embedding else text["vocab_size"],
        "tied_embeddings": tied if shapes else bool(text.get("tie_word_embeddings", False)),
        "rope_positions": positions,
        "attention": _attention(text, unknown),
        "mlp": _mlp(text),
    }
    if config.get("vision_config") or config.get("vision_tower"):
        found["vision"] = _vision(config, published, unknown)
    return found


def _attention(text: Mapping[str, Any], unknown: list[str]) -> dict[str, Any]:
    if text.get("kv_lora_rank"):
        keys = ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
        return {"kind": "mla", **{key: text.get(key) or 0 for key in keys}}
    heads, hidden = text["num_attention_heads"], text["hidden_size"]
    size = text.get("head_dim") or hidden // heads
    found: dict[str, Any] = {
        "kind": "gqa",
        "kv_heads": text.get("num_key_value_heads") or heads,
        "head_dim": size,
    }
    partial = text.get("partial_rotary_factor") or (text.get("rope_parameters") or {}).get(
        "partial_rotary_factor"
    )
    if partial and partial < 1:
        found["rope_dim"] = int(size * partial)
    layers, kinds = text["num_hidden_layers"], list(text.get("layer_types") or ())
    if "linear_num_value_heads" in text:
        interval = text.get("full_attention_interval") or 4
        found["doubled_queries"] = bool(text.get("attn_output_gate", True))
        found["linear"] = {
            "layers": kinds.count("linear_attention") if kinds else layers - layers // interval,
            "key_heads": text["linear_num_key_heads"],
            "value_heads": text["linear_num_value_heads"],
            "key_dim": text["linear_key_head_dim"],
            "value_dim": text["linear_value_head_dim"],
            "convolution": text["linear_conv_kernel_dim"],
            "state_bytes": 4 if text.get("mamba_ssm_dtype") == "float32" else 2,
        }
    window = text.get("sliding_window")
    if window and text.get("use_sliding_window", True):
        pattern = text.get("sliding_window_pattern") or text.get("_sliding_window_pattern")
        count = (
            kinds.count("sliding_attention") if kinds else layers - layers // pattern if pattern else layers
        )
        if 0 < count < layers:
            found["window"] = {"tokens": window, "layers": count}
        elif count == layers:
            unknown.append(
                f"a window of {window:,} tokens in every layer: the KV cache is counted without it, as larger"
            )
    return found


def _mlp(text: Mapping[str, Any]) -> dict[str, Any]:
    experts = text.get("n_routed_experts") or text.get("num_local_experts") or text.get("num_experts")
    if not experts:
        return {"kind": "dense", "intermediate": text["intermediate_size"]}
    width = text.get("moe_intermediate_size") or text["intermediate_size"]
    found: dict[str, Any] = {
        "kind": "moe",
        "experts": experts,
        "active": text.get("num_experts_per_tok") or text.get("experts_per_token") or 1,
        "shared": text.get("n_shared_experts") or 0,
        "intermediate": width,
    }
    if text.get("shared_expert_intermediate_size"):
        found |= {"shared": 1, "shared_intermediate": text["shared_expert_intermediate_size"]}
    dense = text.get("first_k_dense_replace") or len(text.get("mlp_only_layers") or ())
    if dense:
        found |= {"dense_layers": dense, "dense_intermediate": text["intermediate_size"]}
    return found


def _vision(config: Mapping[str, Any], published: Published, unknown: list[str]) -> dict[str, Any]:
    parameters = sum(
        prod(shape) for name, shape, _ in published.tensors if tensor_groups.group_of(name) == "vision"
    )
    tower = config.get("vision_config") or {}
    patch, merge = tower.get("patch_size"), tower.get("spatial_merge_size")
    largest = tower.get("max_image_size") or tower.get("image_size")
    if published.mistral_format and patch and merge and largest:
        patches = (largest // patch) ** 2
        return {
            "kind": "pixtral",
            "parameters": parameters,
            "hidden": tower["hidden_size"],
            "intermediate": tower["intermediate_size"],
            "patches": patches,
            "tokens": patches // merge**2,
        }
    unknown.append("what a step of images takes in its vision tower")
    return {"kind": "other", "parameters": max(1, parameters)}


def _precision(
    text: Mapping[str, Any], dimensions: Mapping[str, Any], published: Published
) -> tuple[str, dict[str, Any]]:
    groups = tensor_groups.bytes_by_group(
        ((n, size) for n, _, size in published.tensors), dimensions["layers"]
    )
    attention, mlp = _parameters(dimensions)
    quantization = text.get("quantization_config") or text.get("compression_config") or {}
    linear = (groups.get("attention", 0) + groups.get("kv", 0) + groups.get("latent", 0)) / attention
    experts = (groups.get("experts", 0) + groups.get("mlp", 0)) / mlp
    found = {
        "repository": published.repository,
        "revision": published.revision,
        "bytes": published.download_bytes,
        "linear_bytes": round(linear, 4),
        "expert_bytes": round(experts, 4),
        "tensors": groups,
    }
    if quantization.get("weight_block_size"):
        found["block_scales"] = True
    if published.include != ("*",):
        found["include"] = list(published.include)
    if published.exclude:
        found["exclude"] = list(published.exclude)
    return _precision_name(text, quantization), found


def _parameters(dimensions: Mapping[str, Any]) -> tuple[int, int]:
    """Parameters of attention, and of experts and dense blocks, in all layers."""
    attention, mlp, hidden = dimensions["attention"], dimensions["mlp"], dimensions["hidden"]
    heads, layers = dimensions["heads"], dimensions["layers"]
    if attention["kind"] == "mla":
        nope, rope, v = attention["qk_nope_head_dim"], attention["qk_rope_head_dim"], attention["v_head_dim"]
        rank, latent = attention["q_lora_rank"], attention["kv_lora_rank"]
        each = (rank or hidden) * heads * (nope + rope) + latent * heads * (nope + v) + heads * v * hidden
        each += hidden * (rank + latent + rope)
    else:
        queries = (3 if attention.get("doubled_queries") else 2) * heads
        each = hidden * attention["head_dim"] * (queries + 2 * attention["kv_heads"])
    full = layers - attention.get("linear", {}).get("layers", 0)
    dense = mlp.get("dense_layers", 0)
    block = 3 * hidden * mlp["intermediate"]
    if mlp["kind"] == "dense":
        return full * each, layers * block
    shared = 3 * hidden * mlp.get("shared_intermediate", mlp["intermediate"] * mlp["shared"])
    first = 3 * hidden * mlp.get("dense_intermediate", 0)
    return full * each, (layers - dense) * (block * mlp["experts"] + shared) + dense * first


def _precision_name(text: Mapping[str, Any], quantization: Mapping[str, Any]) -> str:
    """A short name of how the weights are quantised."""
    method = str(quantization.get("quant_method") or quantization.get("quant_algo") or "").lower()
    groups = quantization.get("config_groups")
    first: dict[str, Any] = next(iter(groups.values()), {}) if isinstance(groups, dict) else {}
    weights = first.get("weights") or {}
    if method == "compressed-tensors" and weights:
        kind, bits = str(weights.get("type", "int")), weights.get("num_bits", 0)
        return "nvfp4" if (kind, bits) == ("float", 4) else f"fp{bits}" if kind == "float" else f"int{bits}"
    if method == "modelopt" or "nvfp4" in method:
        return "nvfp4" if "nvfp4" in str(quantization).lower() else "fp8"
    if method in {"gptq", "awq"}:
        return f"{method}-int{quantization.get('bits', 4)}"
    kind = str(text.get("torch_dtype") or text.get("dtype") or "bfloat16")
    return method or {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}.get(kind, kind)


def _chat_flags(
    architecture: str, published: Published, asked: Wishes, unknown: list[str]
) -> tuple[dict[str, Any], str]:
    """Flags for chats, and when the model thinks."""
    known = architectures()["parsers"].get(architecture, {})
    flags: dict[str, Any] = {}
    if published.mistral_format:
        flags = dict.fromkeys(("config-format", "tokenizer-mode", "load-format"), "mistral")
    template = published.template
    tools = asked.tool_parser or known.get("tool-call-parser")
    if not asked.tool_parser and template and "tools" not in template and not published.mistral_format:
        tools = None
    if tools:
        flags |= {"tool-call-parser": tools, "enable-auto-tool-choice": True}
    else:
        unknown.append("its tool parser, so tools are refused; name one with --tool-call-parser")
    thinks = asked.thinks or _thinks(architecture, template)
    reasoning = asked.reasoning_parser or known.get("reasoning-parser")
    if thinks != "never" and reasoning:
        flags["reasoning-parser"] = reasoning
    elif thinks != "never":
        unknown.append(
            "its reasoning parser, so thoughts are part of the answer; name one with --reasoning-parser"
        )
    return {**flags, **asked.flags}, thinks


def _thinks(architecture: str, template: str) -> str:
    """When a model reasons, by its chat template."""
    if architecture == "GptOssForCausalLM":
        return "always"
    if "enable_thinking" in template or "reasoning_effort" in template or "[MODEL_SETTINGS]" in template:
        return "on request"
    return "always" if "<think>" in template else "never"


def _requests(architecture: str, published: Published, thinks: str) -> dict[str, Any]:
    """How requests are adapted: roles and efforts that the chat template does not have.

    With the effort none, vLLM 0.32.0 leaves the thoughts of a model that always thinks in the answer (run on the CPU).
    """
    if architecture == "GptOssForCausalLM":
        return {"reasoning_efforts": dict(_GPT_OSS_EFFORTS)}
    efforts = {"reasoning_efforts": {"none": "low"}} if thinks == "always" else {}
    return (
        efforts
        if not published.template or "developer" in published.template
        else {"developer_role": "system", **efforts}
    )


def sized(tensors: Iterable[Any]) -> tuple[tuple[str, tuple[int, ...], int], ...]:
    """Tensors of the hub's client as names, shapes and bytes."""
    return tuple((one.name, tuple(one.shape), one.size) for one in tensors)
