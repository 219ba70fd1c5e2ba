"""Here: writes the table of lab/notes/models.md: the memory formulas against public start logs of vLLM.

usage: start_logs.py [--write]    (without it the table is printed)

Each log is quoted in a public thread. Weights are those of "Model loading took"; tokens are those of "GPU KV cache
size", or "Maximum concurrency" times the context, which newer versions report as the same. They are compared with what
the formulas make of the memory that the same log reports as free for the cache ("Available KV cache memory"), because
activation and graphs are those of that version and machine.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from pulumi_vllm.plan import catalogue, weight_memory
from pulumi_vllm.plan.catalogue import Model
from pulumi_vllm.plan.memory_settings import GIB, MemorySettings
from pulumi_vllm.plan.published_config import Published, model_file
from pulumi_vllm_local.hub import published_models

DOCUMENT = Path(__file__).parents[2] / "lab/notes/models.md"
BEGIN, END = "<!-- python lab/models/start_logs.py --write -->\n", "<!-- end of the table -->\n"
KNOWN = catalogue.load()

OTHERS: dict[str, dict[str, Any]] = {  # published configurations of models that the catalogue does not have
    "qwen3-8b": {
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_size": 4096, "intermediate_size": 12288,
        "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        "vocab_size": 151936, "max_position_embeddings": 40960,
    },
    "qwen3-235b-a22b": {
        "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "hidden_size": 4096,
        "moe_intermediate_size": 1536, "intermediate_size": 12288, "num_hidden_layers": 94, "num_attention_heads": 64,
        "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8, "vocab_size": 151936,
        "max_position_embeddings": 40960,
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    },
    "qwen2.5-vl-7b": {
        "model_type": "qwen2_5_vl", "architectures": ["Qwen2_5_VLForConditionalGeneration"], "hidden_size": 3584,
        "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
        "vocab_size": 152064, "max_position_embeddings": 128000,
        "vision_config": {
            "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 3584, "patch_size": 14,
            "temporal_patch_size": 2, "spatial_merge_size": 2,
        },
    },
    "qwen3.6-35b-a3b": {
        "model_type": "qwen3_next", "architectures": ["Qwen3_5MoeForConditionalGeneration"], "hidden_size": 2048,
        "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512, "intermediate_size": 5120,
        "num_hidden_layers": 40, "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 256,
        "num_experts": 256, "num_experts_per_tok": 8, "full_attention_interval": 4, "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
        "linear_value_head_dim": 128, "mamba_ssm_dtype": "float32", "vocab_size": 248320,
        "max_position_embeddings": 262144,
    },
    "qwen3.8-27b": {
        "model_type": "qwen3_next", "architectures": ["Qwen3_5ForConditionalGeneration"], "hidden_size": 5120,
        "intermediate_size": 17408, "num_hidden_layers": 64, "num_attention_heads": 24, "num_key_value_heads": 4,
        "head_dim": 256, "full_attention_interval": 4, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128,
        "linear_num_key_heads": 16, "linear_num_value_heads": 48, "linear_value_head_dim": 128,
        "mamba_ssm_dtype": "float32", "vocab_size": 248320, "max_position_embeddings": 262144,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Log:
    """What a public log reports, per GPU."""

    source: str
    model: str
    precision: str
    gpu: str
    capability: str
    parallel: int = 1
    weights_gib: float | None = None
    cache_gib: float | None = None
    tokens: int | None = None
    context: int = 32768
    batched: int = 8192
    cache_bytes: int = 2


_ESTIMATOR = "ashishkamra/vllm-memory-estimator, tests/test_validation_db.py"
_EMPIRICAL = "llm-d/llm-d-benchmark, config_explorer/empirical-vllm-memory-results.md"

LOGS = (
    Log("vllm-project/vllm issue 10517", "llama-3.1-8b", "bf16", "RTX 3090", "8.6", 1, 14.9888, 3.81, 31_232, 20_000),
    Log("vllm-project/vllm pull request 12569", "llama-3.3-70b", "fp8", "H100", "9.0", 1, 67.7229),
    Log("vllm-project/vllm issue 33155", "gpt-oss-120b", "mxfp4", "H100", "9.0", 1, 64.38),
    Log(
        "princeton-ddss/blackfish issue 162", "gpt-oss-120b", "mxfp4", "A100", "8.0", 2, 34.38, 35.82,
        round(15.66 * 131_072), 131_072, 2048,
    ),
    Log("vllm-project/vllm issue 17469", "qwen3-30b-a3b", "bf16", "4 GPUs", "8.0", 4, 14.2474),
    Log("vllm-project/vllm issue 21348", "qwen3-235b-a22b", "fp8", "H100", "9.0", 4, None, 8.11, 178_880, 40_960),
    Log("QwenLM/Qwen3-VL issue 1057", "qwen2.5-vl-7b", "bf16", "H100", "9.0", 1, 15.6271),
    Log(
        "noonghunna/club-3090 issue 612", "qwen3.6-35b-a3b", "nvfp4", "RTX 5090", "12.0", 1, None, 5.98, 567_978,
        131_072, 8192, 1,
    ),
    Log(
        "mitchross/talos-argocd-proxmox pull request 1995", "qwen3.8-27b", "fp8", "RTX 3090", "8.6", 2, None, 4.99,
        302_921, 131_072, 8192, 1,
    ),
    Log(_ESTIMATOR, "llama-3.3-70b", "fp8", "H200", "9.0", 4, 16.9619, 106.17, 1_391_552, 8_192),
    Log(_ESTIMATOR, "deepseek-v3", "fp8", "8 GPUs", "9.0", 8, 79.7390, 41.60, 635_648, 8_192),
    Log(
        "dariustanrd/tokenkaki, blogposts/content/1_vllm", "qwen3-8b", "bf16", "A100 40GB", "8.0", 1, 15.2683, 18.69,
        136_080, 40_960,
    ),
    Log(_EMPIRICAL, "gpt-oss-20b", "mxfp4", "H100", "9.0", 1, 13.47),
    Log(_EMPIRICAL, "llama-3.3-70b", "fp8", "H100", "9.0", 2, 33.88),
    Log(
        'a public log, "vLLM API Server Startup Log (Example)" of 25 September (repository not known)',
        "gemma-3-27b", "bf16", "a GPU of AMD", "9.4", 1, 51.7891, 109.86, 205_696, 4_096,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A log beside what the formulas say; None where the log does not have the figure."""

    log: Log
    weights_gib: float | None
    tokens: int | None

    @property
    def weights_off(self) -> float | None:
        """Relative difference of the weights."""
        return (
            None
            if self.weights_gib is None or not self.log.weights_gib
            else self.weights_gib / self.log.weights_gib - 1
        )

    @property
    def tokens_off(self) -> float | None:
        """Relative difference of the tokens."""
        return None if self.tokens is None or not self.log.tokens else self.tokens / self.log.tokens - 1


def model_of(name: str) -> Model:
    """A model of the catalogue, or of OTHERS."""
    if name in KNOWN.models:
        return KNOWN.models[name]
    shapes = published_models.tensors(OTHERS[name])
    sized = tuple(
        (key, shape, prod(shape) * published_models.BYTES[dtype]) for key, (dtype, shape) in shapes.items()
    )
    return catalogue.model_of(model_file(Published(f"x/{name}", "0" * 40, OTHERS[name], False, sized, 1)))


def row(log: Log) -> Row:
    """The formulas' figures for a log."""
    model = model_of(log.model)
    precision = model.precisions.get(log.precision) or next(iter(model.precisions.values()))
    settings = MemorySettings(log.parallel, log.context, 256, 0.9, log.batched, cache_bytes=log.cache_bytes)
    weights = None
    if log.weights_gib:
        found = weight_memory.weight_bytes(
            model.dimensions, precision, log.parallel, vision=True, capability=log.capability
        )
        weights = found / GIB
    if log.tokens is None or log.cache_gib is None:
        return Row(log, weights, None)
    each = weight_memory.kv_bytes_per_token(model.dimensions, log.parallel, log.cache_bytes) * log.context
    each += weight_memory.kv_bytes_per_request(model.dimensions, settings)
    return Row(log, weights, int(log.cache_gib * GIB / each * log.context))


def table() -> str:
    """The table in Markdown."""
    text = (
        "| model | machine | weights reported, computed, GiB per GPU | KV tokens reported, computed | source |\n"
        "|---|---|---|---|---|\n"
    )
    for log in LOGS:
        found = row(log)
        weights = tokens = "-"
        if found.weights_off is not None:
            weights = f"{log.weights_gib:.2f}, {found.weights_gib:.2f} ({found.weights_off:+.1%})"
        if found.tokens_off is not None:
            tokens = f"{log.tokens:,}, {found.tokens:,} ({found.tokens_off:+.1%})"
        machine = f"{log.gpu}, TP {log.parallel}"
        text += f"| {log.model} {log.precision} | {machine} | {weights} | {tokens} | {log.source} |\n"
    return text


if __name__ == "__main__":
    if "--write" in sys.argv:
        document = DOCUMENT.read_text()
        head, rest = document.split(BEGIN)
        DOCUMENT.write_text(head + BEGIN + table() + END + rest.split(END)[1])
    else:
        print(table())
