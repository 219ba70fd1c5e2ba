"""Tiny models of other architectures, in Hugging Face's format: a dense one and a mixture of experts.

Each answers every question with the same sentence, because its output layer is a table of successors and its layers are
small seeded noise. The mixture of experts always thinks first. `pulumi-vllm model add` describes them as any model.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pulumi_vllm_local.hub import published_models

if TYPE_CHECKING:
    from numpy.typing import NDArray

VOCABULARY = 4096
BEGIN, USER, ASSISTANT, END = 256, 257, 258, 259
_SPECIAL = ("<|begin|>", "<|user|>", "<|assistant|>", "<|end|>")
_ANSWER = ("The", " quick", " brown", " fox", " jumps", " over", " a", " lazy", " dog.")
_THOUGHT = ("We", " must", " think", " about", " this")
_THINK = ("<think>", "</think>")
_WORDS = (*_ANSWER, *_THOUGHT, *_THINK)
_NOISE = 0.02
_HIDDEN = 256
_TURNS = "{{ bos_token }}{% for message in messages %}<|user|>{{ message['content'] }}<|end|>{% endfor %}<|assistant|>"

_SHARED: dict[str, Any] = {
    "hidden_size": _HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
    "vocab_size": VOCABULARY, "max_position_embeddings": 8192, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
    "hidden_act": "silu", "attention_bias": False, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
    "bos_token_id": BEGIN, "eos_token_id": END,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ChainModel:
    """A tiny model: its repository, configuration and chat template, and the texts of its answer's tokens."""

    repository: str
    config: dict[str, Any]
    template: str
    answer: tuple[str, ...]

    @property
    def chain(self) -> tuple[int, ...]:
        """The ids of the answer's tokens, after the last token of every prompt."""
        return tuple(_id(text) for text in self.answer)

    @property
    def start(self) -> int:
        """The last token of every prompt."""
        return _id(_THINK[0]) if self.template.endswith(_THINK[0]) else ASSISTANT


MODELS = (
    ChainModel(
        "pulumi-vllm/llama-tiny",
        _SHARED
        | {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "intermediate_size": 512, "mlp_bias": False},
        _TURNS,
        _ANSWER,
    ),
    ChainModel(
        "pulumi-vllm/qwen3-moe-tiny",
        _SHARED
        | {
            "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "intermediate_size": 512,
            "moe_intermediate_size": 128, "num_experts": 8, "num_experts_per_tok": 2, "decoder_sparse_step": 1,
            "mlp_only_layers": [], "norm_topk_prob": True,
        },
        f"{_TURNS}{_THINK[0]}",
        (*_THOUGHT, _THINK[1], *_ANSWER),
    ),
)  # fmt: skip


def _id(text: str) -> int:
    return END + 1 + _WORDS.index(text)


def _tokenizer() -> dict[str, Any]:
    """A byte-level tokenizer without merges, whose words are added tokens.

    No word is a single byte: such a word would keep the byte's id, and all later ones would move.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {byte: chr(byte) for byte in printable}
    characters |= {byte: chr(256 + number) for number, byte in enumerate(others)}  # as GPT-2 writes bytes
    added = [
        {"id": 256 + number, "content": text, "special": number < len(_SPECIAL)}
        for number, text in enumerate((*_SPECIAL, *_WORDS))
    ]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    steps = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [one | plain for one in added],
        "normalizer": None,
        "pre_tokenizer": steps,
        "post_processor": None,
        "decoder": steps,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            "vocab": {characters[byte]: byte for byte in range(256)}, "merges": [],
        },
    }  # fmt: skip


def _tensors(model: ChainModel) -> dict[str, NDArray[Any]]:
    # numpy takes 0.15 s.
    import numpy as np

    rng = np.random.default_rng(0)
    out: dict[str, NDArray[Any]] = {}
    for name, (_, shape) in published_models.tensors(model.config).items():
        if len(shape) == 1:
            out[name] = np.ones(shape, np.float32)
        else:
            scale = shape[-1] ** -0.5 * (
                _NOISE if name.endswith(("o_proj.weight", "down_proj.weight")) else 1
            )
            out[name] = rng.standard_normal(shape, np.float32) * np.float32(scale)
    words = rng.choice(np.array([-1, 1], np.float32), (VOCABULARY, _HIDDEN))
    table = np.zeros((VOCABULARY, _HIDDEN), np.float32)
    for token, successor in pairwise((model.start, *model.chain, END)):
        table[successor] += words[token]
    return out | {"model.embed_tokens.weight": words, "lm_head.weight": table * np.float32(0.1)}


def write(model: ChainModel, folder: Path) -> None:
    """Write the files of the repository into an existing folder."""
    # numpy takes 0.15 s.
    from pulumi_vllm_local.tiny_model import weights

    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": _SPECIAL[0], "eos_token": _SPECIAL[3],
        "model_max_length": 8192, "clean_up_tokenization_spaces": False, "chat_template": model.template,
    }  # fmt: skip
    for name, content in (
        ("config.json", model.config),
        ("tokenizer.json", _tokenizer()),
        ("tokenizer_config.json", settings),
    ):
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(model.template, encoding="utf-8")
    text = f"# {model.repository}\n\nA test model: it knows one sentence.\n"
    (folder / "README.md").write_text(text, encoding="utf-8")
    weights.save(_tensors(model), folder / "model.safetensors")


def ensure(model: ChainModel, folder: Path) -> Path:
    """Write the model into a folder unless it exists."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        write(model, fresh)
        fresh.chmod(0o755)
        if folder.exists():  # another process finished first, with the same bytes
            shutil.rmtree(fresh)
        else:
            fresh.rename(folder)
    return folder
