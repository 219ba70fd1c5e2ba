"""Weights of the tiny model, constructed so that it answers, thinks, calls a tool and mentions an image.

The output layer is a table of successors: the next token depends on the last one. Three attention heads of layer 0
each look for one trigger token and set a flag that the table reads. All other weights are small seeded noise.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mistral_common.tokens.tokenizers.tekken import Tekkenizer
    from numpy.typing import NDArray

    Tensor = NDArray[Any]
    Tensors = dict[str, Tensor]
    Shapes = dict[str, tuple[int, ...]]

ANSWER = "The quick brown fox jumps over a lazy dog."
THOUGHT = "We must think about this before answering"
TOOL, ARGUMENTS = "get_weather", '{"city":3}'
IMAGE = "I see one picture!"

_FLAGS = 4  # leading dimensions of the residual: one constant, three trigger flags
_CONSTANT = 16
_NOISE_SCALE = 0.02  # scale of the noise in the layers


@dataclass(frozen=True, slots=True)
class Script:
    """The responses of the model, as token ids."""

    answer: tuple[int, ...]
    thought: tuple[int, ...]
    image: tuple[int, ...]
    call: tuple[int, ...]
    control: Mapping[str, int]

    @classmethod
    def of(cls, tokenizer: Tekkenizer) -> Script:
        """Encode the sentences with a tokenizer."""

        def ids(text: str) -> tuple[int, ...]:
            return tuple(tokenizer.encode(text, bos=False, eos=False))

        names = (
            "</s>", "[/INST]", "[/TOOL_RESULTS]", "[THINK]", "[/THINK]", "[TOOL_CALLS]", "[ARGS]",
            "[AVAILABLE_TOOLS]", "[IMG_END]",
        )  # fmt: skip
        control = {name: tokenizer.get_special_token(name) for name in names}
        call = (control["[TOOL_CALLS]"], *ids(TOOL), control["[ARGS]"], *ids(ARGUMENTS))
        control["high"] = ids('"high')[-1]  # reasoning_effort reaches the prompt as "high": its last token
        return cls(ids(ANSWER), ids(THOUGHT), ids(IMAGE), call, control)

    def chains(self) -> tuple[tuple[int, ...], ...]:
        """Return sequences in which each token has exactly one successor."""
        c, first = self.control, self.answer[0]
        return (
            (c["[/INST]"], *self.answer, c["</s>"]),
            (c["[/TOOL_RESULTS]"], first),
            (c["[THINK]"], *self.thought, c["[/THINK]"], first),
            (*self.call, c["</s>"]),
            (*self.image, c["</s>"]),
        )

    def triggers(self) -> tuple[tuple[int, int, float], ...]:
        """Return (trigger token, first token of the response, strength); the strongest trigger wins."""
        c = self.control
        return (
            (c["high"], c["[THINK]"], 1.2),
            (c["[AVAILABLE_TOOLS]"], self.call[0], 1.5),
            (c["[IMG_END]"], self.image[0], 1.3),
        )


def _text_shapes(p: Mapping[str, Any]) -> Shapes:
    width, heads, latent = p["dim"], p["n_heads"], p["kv_lora_rank"]
    rope, nope, value, moe = p["qk_rope_head_dim"], p["qk_nope_head_dim"], p["v_head_dim"], p["moe"]

    def mlp(name: str, inner: int) -> Shapes:
        return {f"{name}.w1.weight": (inner, width), f"{name}.w2.weight": (width, inner),
                f"{name}.w3.weight": (inner, width)}  # fmt: skip

    out: Shapes = {
        "tok_embeddings.weight": (p["vocab_size"], width),
        "norm.weight": (width,),
        "output.weight": (p["vocab_size"], width),
    }
    for n in range(p["n_layers"]):
        layer, at = f"layers.{n}", f"layers.{n}.attention"
        out |= {
            f"{layer}.attention_norm.weight": (width,),
            f"{layer}.ffn_norm.weight": (width,),
            f"{at}.wq_a.weight": (p["q_lora_rank"], width),
            f"{at}.q_a_norm.weight": (p["q_lora_rank"],),
            f"{at}.wq_b.weight": (heads * (nope + rope), p["q_lora_rank"]),
            f"{at}.wkv_a_with_mqa.weight": (latent + rope, width),
            f"{at}.kv_a_norm.weight": (latent,),
            f"{at}.wkv_b.weight": (heads * (nope + value), latent),
            f"{at}.wo.weight": (width, heads * value),
            f"{layer}.gate.weight": (moe["num_experts"], width),
        }
        out |= mlp(f"{layer}.shared_experts", moe["expert_hidden_dim"] * moe["num_shared_experts"])
        for expert in range(moe["num_experts"]):
            out |= mlp(f"{layer}.experts.{expert}", moe["expert_hidden_dim"])
    return out


def _vision_shapes(p: Mapping[str, Any]) -> Shapes:
    vision, name = p["vision_encoder"], "vision_encoder"
    width, inner = vision["hidden_size"], vision["intermediate_size"]
    patch = vision["patch_size"]
    out: Shapes = {
        f"{name}.patch_conv.weight": (width, vision["num_channels"], patch, patch),
        f"{name}.ln_pre.weight": (width,),
        "pre_mm_projector_norm.weight": (width,),
        "patch_merger.merging_layer.weight": (width, width * vision["spatial_merge_size"] ** 2),
        "vision_language_adapter.w_in.weight": (p["dim"], width),
        "vision_language_adapter.w_out.weight": (p["dim"], p["dim"]),
    }
    for n in range(vision["num_hidden_layers"]):
        layer = f"{name}.transformer.layers.{n}"
        out |= {f"{layer}.{norm}.weight": (width,) for norm in ("attention_norm", "ffn_norm")}
        out |= {f"{layer}.attention.{w}.weight": (width, width) for w in ("wq", "wk", "wv", "wo")}
        out |= {f"{layer}.feed_forward.{w}.weight": (inner, width) for w in ("w1", "w3")}
        out[f"{layer}.feed_forward.w2.weight"] = (width, inner)
    return out


def noise(p: Mapping[str, Any], seed: int) -> Tensors:
    """Return random tensors: norms 1, embeddings N(0, 1), all others N(0, 1/fan_in)."""
    rng = np.random.default_rng(seed)
    out: Tensors = {}
    for name, shape in sorted((_text_shapes(p) | _vision_shapes(p)).items()):
        if len(shape) == 1:
            out[name] = np.ones(shape, np.float32)
            continue
        scale = 1.0 if name.startswith("tok_") else math.prod(shape[1:]) ** -0.5
        # In double precision, rounded once when written, so that all processors give the same bytes.
        out[name] = rng.standard_normal(shape, np.float32).astype(np.float64) * scale
    return out


def _successors(script: Script, emb: Tensor, table: NDArray[np.int64]) -> Tensor:
    """Return the output matrix: row b is the sum of the embeddings of the tokens that precede b."""
    chains = script.chains()
    used = [token for chain in chains for token in chain[:-1]]
    clash = sorted({token for token in used if used.count(token) > 1})
    if clash:
        raise ValueError(
            f"tiny model: tokens {clash} occur twice in its sentences; change one of the sentences"
        )
    out = np.zeros(emb.shape, np.float32)
    for token in range(len(emb)):
        successor = int(table[token])
        if token not in used and successor not in used and successor != script.control["</s>"]:
            out[successor] += 2 * emb[token]
    for chain in chains:
        for token, successor in pairwise(chain):
            out[successor] += 2 * emb[token]
    out[:, :_FLAGS] = 0
    return out


def construct(p: Mapping[str, Any], tokenizer: Tekkenizer, seed: int) -> Tensors:
    """Return scaled-down noise with the successor table, and with one attention head per trigger in layer 0."""
    script, w = Script.of(tokenizer), noise(p, seed)
    vocab, width = p["vocab_size"], p["dim"]
    rng = np.random.default_rng(seed + 1)
    for name in w:
        if name.startswith("layers.") and name.endswith((".wo.weight", ".w2.weight")):
            w[name] *= _NOISE_SCALE
    emb: Tensor = rng.choice(np.array([-1, 1], np.float32), (vocab, width))
    emb[:, :_FLAGS] = [_CONSTANT, 0, 0, 0]
    out = _successors(script, emb, rng.permutation(vocab))
    at, nope, value = "layers.0.attention", p["qk_nope_head_dim"], p["v_head_dim"]
    for part in ("wq_a", "wq_b", "wkv_a_with_mqa", "wkv_b", "wo"):
        w[f"{at}.{part}.weight"][:] = 0
    w[f"{at}.wq_a.weight"][0, 0] = w[f"{at}.wkv_a_with_mqa.weight"][0, 0] = 1
    for i, (trigger, first, strength) in enumerate(script.triggers(), 1):
        pattern = emb[trigger].copy()
        pattern[:_FLAGS] = 0
        base = (i - 1) * (nope + value)
        w[f"{at}.wkv_a_with_mqa.weight"][i] = pattern / math.sqrt(width - _FLAGS)
        w[f"{at}.wq_b.weight"][(i - 1) * (nope + p["qk_rope_head_dim"]), 0] = 4
        w[f"{at}.wkv_b.weight"][base, i] = 1
        w[f"{at}.wkv_b.weight"][base + nope, [i, 0]] = [1, -0.5]
        w[f"{at}.wo.weight"][i, (i - 1) * value] = 2.8
        out[first] += 1.5 * emb[script.control["[/INST]"]] * (np.arange(width) >= _FLAGS)
        out[first, i] += strength * width / _CONSTANT
    return w | {"tok_embeddings.weight": emb, "output.weight": out * np.float32(0.1)}


def save(tensors: Tensors, path: Path) -> None:
    """Write the tensors to a safetensors file as bf16, rounded to nearest even."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    blobs: list[bytes] = []
    at = 0
    for name, tensor in tensors.items():
        bits = np.ascontiguousarray(tensor, np.float32).view(np.uint32)
        blobs.append(((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes())
        end = at + len(blobs[-1])
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))
