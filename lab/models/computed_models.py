"""Here: writes the computed models of plan/data/models/ from their published configurations.

usage: computed_models.py [--check]

The configurations are those of the local cloud's hub (hub/published_models.json), with the commits that public
repositories pin. `exclude` there are copies of the weights for other programs, which would double a download.
Context limits are the vendors' where the model card names one below the configuration's.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from pulumi_vllm.cli.model import written
from pulumi_vllm.plan.published_config import Published, Wishes, model_file
from pulumi_vllm_local.hub import published_models

TARGET = Path(__file__).parents[2] / "components/pulumi_vllm/plan/data/models"
CONFIGURATIONS = json.loads(Path(published_models.__file__).with_suffix(".json").read_text())["models"]
HEAD = "# Never started by this project: every figure is computed (lab/models/computed_models.py).\n"


@dataclass(frozen=True)
class Shipped:
    """A model of the catalogue: its repositories, the default one first, and what the configuration does not say."""

    repositories: tuple[str, ...]
    wishes: Wishes
    unknown: tuple[str, ...] = field(default=())


def _of(name: str, *repositories: str, context: int, **more: Any) -> Shipped:
    unknown = more.pop("unknown", ())
    return Shipped(repositories, Wishes(name=name, context=context, **more), tuple(unknown))


MODELS = (
    _of("llama-3.1-8b", "meta-llama/Llama-3.1-8B-Instruct", context=131072),
    _of(
        "llama-3.3-70b",
        "RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic",
        "meta-llama/Llama-3.3-70B-Instruct",
        context=131072,
    ),
    _of(
        "deepseek-r1-distill-llama-70b",
        "deepseek-ai/DeepSeek-R1-Distill-Llama-70B",
        context=131072,
        thinks="always",
    ),
    _of("qwen2.5-vl-32b", "Qwen/Qwen2.5-VL-32B-Instruct", context=32768),
    _of("qwen2.5-coder-32b", "Qwen/Qwen2.5-Coder-32B-Instruct", context=32768),
    _of("gpt-oss-120b", "openai/gpt-oss-120b", context=131072),
    _of("gpt-oss-20b", "openai/gpt-oss-20b", context=131072),
    _of("qwen3-30b-a3b", "Qwen/Qwen3-30B-A3B-FP8", "Qwen/Qwen3-30B-A3B", context=40960),
    _of("qwen3-next-80b-a3b", "Qwen/Qwen3-Next-80B-A3B-Instruct", context=262144),
    _of("gemma-3-27b", "google/gemma-3-27b-it", context=131072),
    _of("deepseek-v3", "deepseek-ai/DeepSeek-V3", context=131072, tool_parser="deepseek_v3"),
)


def published(repository: str) -> Published:
    """What the hub publishes about a repository."""
    found = next(one for one in CONFIGURATIONS if one["repository"] == repository)
    shapes = published_models.tensors(found["config"])
    sized = tuple(
        (name, shape, published_models.BYTES[dtype] * prod(shape)) for name, (dtype, shape) in shapes.items()
    )
    weights = sum(size for _, _, size in sized)
    return Published(
        repository=repository,
        revision=found["revision"],
        config=found["config"],
        mistral_format=False,
        tensors=sized,
        download_bytes=round(weights * 1.001),  # headers, tokenizer, template
        exclude=tuple(found.get("exclude", ())),
        template=found["template"],
        license=found["license"] or "DeepSeek model licence",
    )


def content(model: Shipped) -> dict[str, Any]:
    """The content of a model file; the first repository is the default precision."""
    files = [model_file(published(one), model.wishes) for one in model.repositories]
    whole = files[-1]
    for other in files:
        same = {key: value for key, value in other["dimensions"].items() if value != whole["dimensions"][key]}
        if same:
            sys.exit(f"{model.wishes.name}: {same} differ")
    names = ", ".join(f"{one} at {published(one).revision[:8]}" for one in model.repositories)
    whole |= {"precisions": {name: one for file in files for name, one in file["precisions"].items()}}
    whole |= {"source": f"published configuration of {names}"}
    return whole


def text(model: Shipped) -> str:
    """The text of a model file."""
    return HEAD + written(content(model))


if __name__ == "__main__":
    for model in MODELS:
        path = TARGET / f"{model.wishes.name}.yaml"
        if "--check" in sys.argv:
            if path.read_text() != text(model):
                sys.exit(f"{path} differs; run lab/models/computed_models.py")
        else:
            path.write_text(text(model))
            print(f"wrote {path}")
