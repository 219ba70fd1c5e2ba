"""The command-line arguments of the vLLM server that stacks use; invalid ones are refused as in vLLM."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

_DTYPES = ("auto", "half", "float16", "bfloat16", "float", "float32")
_FORMATS = (
    "auto", "hf", "mistral", "safetensors", "fastsafetensors", "instanttensor", "runai_streamer",
    "runai_streamer_sharded", "sharded_state", "ipc_cache", "tensorizer", "modelexpress", "dummy", "pt", "npcache",
)  # fmt: skip
_MOE = (
    "auto", "triton", "cutlass", "deep_gemm", "flashinfer_cutlass", "flashinfer_trtllm", "marlin", "humming",
)  # fmt: skip

# Arguments whose value the fake engine ignores.
_TEXT = (
    "tokenizer", "revision", "code-revision", "tokenizer-revision", "quantization", "attention-backend",
    "kv-cache-dtype", "download-dir", "tool-call-parser", "reasoning-parser", "chat-template",
    "chat-template-content-format", "distributed-executor-backend", "master-addr", "uvicorn-log-level",
    "root-path", "ssl-keyfile", "ssl-certfile", "ssl-ca-certs", "otlp-traces-endpoint", "runner", "convert",
    "response-role", "kv-offloading-backend", "prefix-caching-hash-algo", "generation-config", "uds",
    "safetensors-load-strategy", "all2all-backend", "mm-encoder-tp-mode", "hf-token", "model-impl",
    "performance-mode", "optimization-level",
)  # fmt: skip
_JSON = (
    "compilation-config", "speculative-config", "limit-mm-per-prompt", "hf-overrides", "override-generation-config",
    "kv-transfer-config", "kv-events-config", "additional-config", "model-loader-extra-config", "mm-processor-kwargs",
    "rope-parameters", "default-chat-template-kwargs", "reasoning-effort-map", "structured-outputs-config",
    "attention-config", "kernel-config", "media-io-kwargs",
)  # fmt: skip
_WHOLE = (
    "seed", "max-num-seqs", "max-num-batched-tokens", "max-num-partial-prefills", "max-long-partial-prefills",
    "long-prefill-token-threshold", "max-logprobs", "tensor-parallel-size", "pipeline-parallel-size",
    "data-parallel-size", "decode-context-parallel-size", "prefill-context-parallel-size", "nnodes", "node-rank",
    "master-port", "block-size", "num-gpu-blocks-override", "max-parallel-loading-workers", "api-server-count",
    "shutdown-timeout", "max-num-queued-reqs", "max-num-queued-tokens", "stream-interval", "max-log-len",
    "ssl-cert-reqs", "h11-max-incomplete-event-size", "h11-max-header-count", "max-cudagraph-capture-size",
)  # fmt: skip
_FRACTION = ("gpu-memory-utilization", "cpu-offload-gb", "kv-offloading-size")
_SWITCH = (
    "trust-remote-code", "enforce-eager", "enable-prefix-caching", "enable-chunked-prefill", "async-scheduling",
    "enable-expert-parallel", "enable-eplb", "enable-lora", "disable-cascade-attn", "disable-custom-all-reduce",
    "disable-sliding-window", "skip-tokenizer-init", "enable-prompt-embeds", "enable-sleep-mode",
    "enable-auto-tool-choice", "enable-log-requests", "enable-log-outputs", "enable-log-deltas",
    "enable-request-id-headers", "enable-server-load-tracking", "enable-force-include-usage",
    "enable-prompt-tokens-details", "enable-tokenizer-info-endpoint", "disable-log-stats", "disable-fastapi-docs",
    "disable-uvicorn-access-log", "language-model-only", "skip-mm-profiling", "calculate-kv-scales",
    "disable-hybrid-kv-cache-manager", "exclude-tools-when-tool-choice-none", "use-tqdm-on-load", "headless",
    "enable-dbo", "return-tokens-as-token-ids", "log-error-stack", "kv-sharing-fast-prefill",
    "enable-offline-docs", "aggregate-engine-logging", "disable-access-log-for-endpoints", "ssl-refresh",
)  # fmt: skip
_SHORT = {
    "tensor-parallel-size": "-tp", "pipeline-parallel-size": "-pp", "data-parallel-size": "-dp",
    "decode-context-parallel-size": "-dcp", "quantization": "-q", "optimization-level": "-O",
    "compilation-config": "-cc",
}  # fmt: skip


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"Value {text} cannot be converted to JSON: {error}") from error


def tokens(text: str) -> int:
    """Parse a number of tokens: 4096, 32k (times 1000), 32K (times 1024), or auto (-1)."""
    if text == "auto":
        return -1
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([kKmMgG]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"invalid number of tokens: {text!r}")
    scale = {"": 1, "k": 1000, "m": 10**6, "g": 10**9, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[match[2]]
    return int(float(match[1]) * scale)


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    out = argparse.ArgumentParser(prog="api_server.py")
    out.add_argument("--host")
    out.add_argument("--port", type=int, default=8000)
    out.add_argument("--model", default="Qwen/Qwen3-0.6B")
    out.add_argument("--served-model-name", nargs="+")
    out.add_argument("--api-key", nargs="+", default=[])
    out.add_argument("--allowed-media-domains", nargs="+")
    out.add_argument("--cudagraph-capture-sizes", nargs="+", type=int)
    out.add_argument("--middleware", action="append", default=[])
    out.add_argument("--max-model-len", type=tokens, default=8192)
    out.add_argument("--dtype", choices=_DTYPES, default="auto")
    out.add_argument("--load-format", default="auto", choices=_FORMATS)
    out.add_argument("--config-format", default="auto", choices=("auto", "hf", "mistral"))
    out.add_argument("--tokenizer-mode", default="auto", choices=("auto", "hf", "slow", "mistral", "custom"))
    out.add_argument("--moe-backend", default="auto", choices=_MOE)
    out.add_argument("--kv-cache-memory-bytes", type=tokens)
    out.add_argument("--scheduling-policy", choices=("fcfs", "priority"), default="fcfs")
    for names, kind in ((_TEXT, str), (_JSON, _json), (_WHOLE, int), (_FRACTION, float)):
        for name in names:
            short = (_SHORT[name],) if name in _SHORT else ()
            out.add_argument(f"--{name}", *short, type=kind)
    for name in _SWITCH:
        out.add_argument(f"--{name}", action=argparse.BooleanOptionalAction)
    return out


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse like vLLM, which accepts `_` for `-` in names, and check values that vLLM checks later."""
    plain = []
    for word in argv:
        name, equals, value = word.partition("=")
        plain.append(name.replace("_", "-") + equals + value if name.startswith("--") else word)
    out = parser()
    args = out.parse_args(plain)
    if args.gpu_memory_utilization is not None and not 0 < args.gpu_memory_utilization <= 1:
        out.error(f"gpu_memory_utilization must be in (0, 1], got {args.gpu_memory_utilization}")
    if args.enable_auto_tool_choice and not args.tool_call_parser:
        out.error("--enable-auto-tool-choice requires --tool-call-parser")
    return args


def template_error(template: str | None) -> str | None:
    """Why vLLM refuses a chat template before it starts its core; None where it does not (0.32.0)."""
    if template is None or any(one in template for one in "{}\n"):
        return None
    builtin = Path(__file__).parent / "transformers_utils" / "chat_templates" / template
    if Path(template).exists() or builtin.exists():
        return None
    return (
        f"vllm.exceptions.VLLMValidationError: The supplied chat template string ({template}) appears path-like, but "
        f"doesn't exist! Tried: {template} and {builtin} (parameter=chat_template)"
    )
