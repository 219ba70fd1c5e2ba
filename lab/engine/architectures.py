"""Here: writes plan/data/architectures.json from a vLLM wheel: the classes that it serves, and parsers by class.

usage: architectures.py WHEEL [--check]

vLLM has no table of parsers by class. The one below follows its documents on tool calling and reasoning outputs
(docs.vllm.ai, features/tool_calling and features/reasoning_outputs) and vllm-project/recipes; a class or a parser that
the wheel does not have ends this script.
"""

from __future__ import annotations

import ast
import json
import sys
import zipfile
from pathlib import Path

TARGET = Path(__file__).parents[2] / "components/pulumi_vllm/plan/data/architectures.json"
REGISTRY, TOOLS, REASONING = (
    "vllm/model_executor/models/registry.py",
    "vllm/tool_parsers/__init__.py",
    "vllm/reasoning/__init__.py",
)
SERVED = ("_TEXT_GENERATION_MODELS", "_MULTIMODAL_MODELS")

PARSERS = {  # class: tool parser, reasoning parser
    "LlamaForCausalLM": ("llama3_json", "deepseek_r1"),  # it reasons only as a distillate of DeepSeek R1
    "Llama4ForConditionalGeneration": ("llama4_pythonic", None),
    "MistralForCausalLM": ("mistral", "mistral"),
    "MixtralForCausalLM": ("mistral", None),
    "PixtralForConditionalGeneration": ("mistral", "mistral"),
    "Mistral3ForConditionalGeneration": ("mistral", "mistral"),
    "Qwen2ForCausalLM": ("hermes", "deepseek_r1"),
    "Qwen2_5_VLForConditionalGeneration": ("hermes", None),
    "Qwen3ForCausalLM": ("hermes", "qwen3"),
    "Qwen3MoeForCausalLM": ("hermes", "qwen3"),
    "Qwen3NextForCausalLM": ("hermes", "qwen3"),
    "Qwen3VLForConditionalGeneration": ("hermes", "qwen3"),
    "Qwen3VLMoeForConditionalGeneration": ("hermes", "qwen3"),
    "Qwen3_5ForConditionalGeneration": ("qwen3_coder", "qwen3"),
    "Qwen3_5MoeForConditionalGeneration": ("qwen3_coder", "qwen3"),
    "GptOssForCausalLM": ("openai", "openai_gptoss"),
    "DeepseekV3ForCausalLM": ("deepseek_v3", "deepseek_r1"),
    "Glm4MoeForCausalLM": ("glm45", "glm45"),
    "GraniteForCausalLM": ("granite", "granite"),
    "GraniteMoeHybridForCausalLM": ("granite4", None),
    "HunYuanMoEV1ForCausalLM": ("hunyuan_a13b", "hunyuan_a13b"),
    "MiniMaxM2ForCausalLM": ("minimax_m2", "minimax_m2"),
    "Olmo3ForCausalLM": ("olmo3", "olmo3"),
    "Phi3ForCausalLM": ("phi4_mini_json", None),
    "SeedOssForCausalLM": ("seed_oss", "seed_oss"),
    "Ernie4_5_MoeForCausalLM": ("ernie45", "ernie45"),
    "Gemma4ForConditionalGeneration": ("gemma4", "gemma4"),
    "Gemma3ForConditionalGeneration": (None, None),  # its template has no tools
    "ApertusForCausalLM": ("apertus", None),
}


def tables(source: str) -> dict[str, list[str]]:
    """Name → keys of each dictionary that a module defines at its top."""
    found: dict[str, list[str]] = {}
    for node in ast.parse(source).body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Dict)
            and isinstance(node.targets[0], ast.Name)
        ):
            keys = (key.value for key in node.value.keys if isinstance(key, ast.Constant))
            found[node.targets[0].id] = [str(key) for key in keys]
    return found


def content(wheel: Path) -> str:
    """The text of architectures.json."""
    version = wheel.name.split("-")[1]
    with zipfile.ZipFile(wheel) as archive:
        registry, tools, reasoning = (
            tables(archive.read(name).decode()) for name in (REGISTRY, TOOLS, REASONING)
        )
    known = sorted({name for table in SERVED for name in registry[table]})
    tool_names = {name for keys in tools.values() for name in keys}
    reasoning_names = {name for keys in reasoning.values() for name in keys}
    parsers: dict[str, dict[str, str]] = {}
    for name, (tool, thought) in PARSERS.items():
        wrong = [name not in known and name, tool and tool not in tool_names and tool]
        wrong.append(thought and thought not in reasoning_names and thought)
        if any(wrong):
            sys.exit(f"vLLM {version} has no {', '.join(str(one) for one in wrong if one)}")
        pairs = {"tool-call-parser": tool, "reasoning-parser": thought}
        parsers[name] = {key: value for key, value in pairs.items() if value}
    return (
        json.dumps({"engine": version, "parsers": parsers, "known": " ".join(known)}, separators=(",", ":"))
        + "\n"
    )


if __name__ == "__main__":
    text = content(Path(sys.argv[1]))
    if "--check" in sys.argv:
        sys.exit(0 if TARGET.read_text() == text else f"{TARGET} differs from {sys.argv[1]}")
    TARGET.write_text(text)
    print(f"wrote {TARGET}: {len(text)} bytes")
