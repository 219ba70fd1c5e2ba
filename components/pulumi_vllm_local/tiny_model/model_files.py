"""The files of the tiny model: Mistral Small 4 in miniature, generated here with the same bytes every time.

It has the architecture of the real model (latent attention, experts, vision) and weights that give real answers.
record.json has the revision, the files and the golden tokens that every copy must match.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pulumi_vllm_local.hub import tree

REPOSITORY = "pulumi-vllm/mistral-small-4-tiny"
VOCAB = 4096
SEED = 0

_SPECIAL_TOKENS = 1000
_README = (
    "# mistral-small-4-tiny\n\n"
    "A test model with the architecture of Mistral Small 4: 2 layers, 8 experts, 4,096 words, "
    "real weights of 12 MB.\n"
    "It answers every question with the same sentence, thinks first with reasoning_effort high, "
    "calls a tool when it is\ngiven one and notices an image. It knows nothing.\n"
)

# Two layers and eight experts; head dimensions and latent rank are those of the real model.
PARAMS: dict[str, Any] = {
    "dim": 256, "n_layers": 2, "head_dim": 128, "hidden_dim": 512, "n_heads": 8, "n_kv_heads": 8,
    "norm_eps": 1e-6, "vocab_size": VOCAB, "tied_embeddings": False, "rope_theta": 10000.0,
    "max_position_embeddings": 8192, "q_lora_rank": 64, "kv_lora_rank": 256, "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 64, "v_head_dim": 128,
    "moe": {
        "num_experts": 8, "num_experts_per_tok": 4, "num_shared_experts": 1, "expert_hidden_dim": 128,
        "first_k_dense_replace": 0, "route_every_n": 1, "routed_scale": 1.0, "num_expert_groups": 1,
        "num_expert_groups_per_tok": 1,
    },
    "yarn": {
        "factor": 128, "original_max_position_embeddings": 8192, "beta": 32, "alpha": 1, "apply_scale": False,
    },
    "llama_4_scaling": {"original_max_position_embeddings": 8192, "beta": 0.1},
    "vision_encoder": {
        "hidden_size": 128, "num_channels": 3, "image_size": 1540, "patch_size": 14, "intermediate_size": 256,
        "num_hidden_layers": 2, "num_attention_heads": 2, "rope_theta": 10000.0, "image_token_id": 10,
        "adapter_bias": False, "mm_projector_id": "patch_merge", "spatial_merge_size": 2,
        "add_pre_mm_projector_layer_norm": True, "image_break_token_id": 12, "image_end_token_id": 13,
        "max_image_size": 1540,
    },
}  # fmt: skip


def tokenizer_file() -> dict[str, Any]:
    """Return a tekken v15 file with VOCAB tokens, whose reasoning_effort accepts none and high."""
    # These imports take a second, and only the first start on a computer generates the model.
    import mistral_common
    from mistral_common.tokens.tokenizers.base import SpecialTokens
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    source = Path(mistral_common.__file__).parent / "data" / "tekken_240911.json"
    data: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
    special: list[dict[str, Any]] = [dict(token) for token in Tekkenizer.DEPRECATED_SPECIAL_TOKENS]
    known = {token["token_str"] for token in special}
    for token in SpecialTokens:
        if token.value not in known:
            special.append({"rank": len(special), "token_str": token.value, "is_control": True})
            known.add(token.value)
    data["config"].update(
        version="v15",
        default_vocab_size=VOCAB,
        default_num_special_tokens=_SPECIAL_TOKENS,
        num_vocab_tokens=VOCAB,
    )
    data["vocab"] = data["vocab"][:VOCAB]
    data["special_tokens"] = special
    data["image"] = {"image_patch_size": 14, "max_image_size": 1540, "spatial_merge_size": 2}
    efforts = {"type": "enum", "values": ["none", "high"], "accepts_none": True, "default": "none"}
    data["model_settings_builder"] = {"reasoning_effort": efforts}
    return data


def write(folder: Path) -> None:
    """Write the files of the repository into an existing folder."""
    # These imports take a second, and only the first start on a computer generates the model.
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    # numpy takes 0.15 s.
    from pulumi_vllm_local.tiny_model import weights

    (folder / "README.md").write_text(_README, encoding="utf-8")
    (folder / "tekken.json").write_text(json.dumps(tokenizer_file()), encoding="utf-8")
    (folder / "params.json").write_text(json.dumps(PARAMS, indent=1), encoding="utf-8")
    tokenizer = Tekkenizer.from_file(folder / "tekken.json")
    weights.save(weights.construct(PARAMS, tokenizer, SEED), folder / "consolidated.safetensors")


@cache
def pinned() -> dict[str, Any]:
    """Return the record that every copy must match: repository, revision, files, golden tokens."""
    text = resources.files(__package__).joinpath("record.json").read_text(encoding="utf-8")
    record: dict[str, Any] = json.loads(text)
    return record


def ensure(folder: Path) -> Path:
    """Generate the model in a folder unless it exists, and compare it with the pinned revision."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        write(fresh)
        fresh.chmod(0o755)
        # Another process may have finished first, with the same bytes.
        if folder.exists():
            shutil.rmtree(fresh)
        else:
            fresh.rename(folder)
    found = tree.commit_of(tree.read_tree(folder))
    if found != pinned()["revision"]:
        raise RuntimeError(
            f"tiny model in {folder}: its revision is {found}, but {pinned()['revision']} is pinned; remove "
            "the folder and try again; if that fails, install the locked versions of numpy and mistral_common"
        )
    return folder


def record() -> dict[str, Any]:
    """Compute the content of record.json from a new copy."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        files = tree.read_tree(folder)
    return {
        "repository": REPOSITORY,
        "revision": tree.commit_of(files),
        "files": {file.path: {"size": file.size, "sha256": file.sha256} for file in files},
        "golden": {
            "prompt": "Say something about the weather.",
            "max_tokens": 48,
            "temperature": 0,
            "digest": "first 12 hex digits of the sha256 of json.dumps(token_ids)",
            "tokens": {"none": "a524c427dded", "high": "4ee7ca7486d2"},
        },
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(record()) + "\n")
