"""Sets of flags on which the linter must judge as vLLM's own parser and configuration do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

WRITTEN = """
--enable-log-outputs
--enable-log-outputs --enable-log-requests
--enable-per-request-metrics --disable-log-stats
--enable-per-request-metrics
--enable-auto-tool-choice
--enable-auto-tool-choice --tool-call-parser nothing
--tool-call-parser nothing
--tool-call-parser hermes --enable-auto-tool-choice
--reasoning-parser deepseek
--reasoning-parser qwen3
--max-num-batched-tokens 4 --max-num-seqs 8
--max-num-batched-tokens 1024 --no-enable-chunked-prefill
--max-num-batched-tokens 4096 --no-enable-chunked-prefill
--long-prefill-token-threshold 4096 --max-num-partial-prefills 2
--max-num-partial-prefills 2 --no-enable-chunked-prefill --max-num-batched-tokens 4096
--max-long-partial-prefills 3
--max-num-partial-prefills 3 --max-long-partial-prefills 3
--numa-bind-nodes 0
--numa-bind-cpus 0-3
--numa-bind --numa-bind-cpus 3-0
--enable-eplb
--enable-eplb --enable-expert-parallel
--enable-expert-parallel
--eplb-config {"num_redundant_experts":2}
--eplb-config {"window_size":0}
--decode-context-parallel-size 2
--dcp-comm-backend a2a
--dcp-comm-backend ag_rs
--prefill-context-parallel-size 2 --data-parallel-size 2
--enable-lora
--enable-lora --max-loras 4 --max-cpu-loras 2
--enable-lora --max-loras 2 --max-cpu-loras 4
--enable-lora --max-lora-rank 12
--mm-shm-cache-max-object-size-mb 64
--mm-shm-cache-max-object-size-mb 64 --mm-processor-cache-type shm
--mm-encoder-fp8-scale-path /tmp/x
--mm-encoder-fp8-scale-save-path /tmp/x
--mm-encoder-attn-dtype fp8 --mm-encoder-fp8-scale-path /tmp/x --mm-encoder-fp8-scale-save-path /tmp/y
--renderer-num-workers 2
--renderer-num-workers 2 --mm-processor-cache-gb 0
--collect-detailed-traces all
--otlp-traces-endpoint http://127.0.0.1:4317
--otlp-traces-endpoint http://127.0.0.1:4317 --collect-detailed-traces all
--attention-backend TRITON_MLA --attention-config {"backend":"TRITON_MLA"}
--attention-config {"backend":"TRITON_MLA"}
--attention-backend triton_mla
--attention-backend XFORMERS
--mm-encoder-attn-backend XFORMERS
--mm-encoder-attn-backend torch_sdpa
--enable-flashinfer-autotune --kernel-config {"enable_flashinfer_autotune":true}
--cudagraph-capture-sizes 1 2 4 --compilation-config {"cudagraph_capture_sizes":[1,2]}
--cudagraph-capture-sizes 1 2 4
--max-cudagraph-capture-size 8 --compilation-config {"max_cudagraph_capture_size":8}
--compilation-config {"cudagraph_mode":"SOMETIMES"}
--compilation-config {"mode":9}
--compilation-config {"level":3}
--compilation-config {"pass_config":{"fuse_all":true}}
--compilation-config.mode 0
--mamba-block-size 8 --no-enable-prefix-caching
--enable-mamba-cache-stochastic-rounding
--enable-mamba-cache-stochastic-rounding --mamba-ssm-cache-dtype float16
--offload-group-size 2 --offload-num-in-group 4
--offload-group-size 4 --offload-num-in-group 2
--quantization fp_quant
--quantization int4
--quantization fp8
--runner pooling
--runner draft
--convert embed
--distributed-executor-backend ray
--distributed-executor-backend threads
--distributed-executor-backend uni
--distributed-executor-backend mp
--distributed-executor-backend external_launcher
--ray-workers-use-nsight
--enable-elastic-ep
--enable-return-routed-experts
--kv-offloading-size 1 --kv-offloading-backend lmcache
--kv-transfer-config {"kv_connector":"Nothing"}
--kv-transfer-config {"kv_role":"kv_both"}
--kv-transfer-config {"kv_connector":"ExampleConnector","kv_role":"both"}
--kv-events-config {"enable_kv_cache_events":true}
--speculative-config {"method":"ngram"}
--speculative-config {"method":"ngram","num_speculative_tokens":3,"prompt_lookup_max":4}
--speculative-config {"method":"nothing","num_speculative_tokens":3}
--speculative-config {"num_speculative_tokens":3}
--speculative-config {"method":"eagle","num_speculative_tokens":3}
--speculative-config {"method":"ngram","num_speculative_tokens":0}
--speculative-config []
--spec-method ngram
--spec-method ngram --spec-tokens 3
--spec-tokens 3
--spec-method ngram --spec-tokens 3 --speculative-config {"method":"ngram","num_speculative_tokens":3}
--structured-outputs-config {"backend":"outlines","disable_any_whitespace":true}
--structured-outputs-config {"backend":"guidance","disable_any_whitespace":true}
--structured-outputs-config {"backend":"xgrammar","disable_additional_properties":true}
--structured-outputs-config {"backend":"nothing"}
--profiler-config {"profiler":"torch"}
--profiler-config {"profiler":"torch","torch_profiler_dir":"/tmp/x"}
--profiler-config {"torch_profiler_dir":"/tmp/x"}
--limit-mm-per-prompt {"image":4}
--limit-mm-per-prompt {"image":-1}
--limit-mm-per-prompt {"picture":4}
--limit-mm-per-prompt {"image":"4"}
--limit-mm-per-prompt {"image":{"count":4,"width":100}}
--limit-mm-per-prompt {"image":{"number":4}}
--limit-mm-per-prompt []
--limit-mm-per-prompt image=4
--max-model-len 16384
--max-model-len 1000000000
--max-model-len auto
--max-model-len -1
--max-model-len 2.5
--block-size 8
--block-size 16
--block-size 12
--dtype fp8
--dtype float16
--kv-cache-dtype fp8
--kv-cache-dtype int3
--kv-cache-dtype nvfp4
--optimization-level 2
--optimization-level 7
--optimization-level fast
--performance-mode speed
--tokenizer-mode fast
--config-format gguf
--load-format gguf
--load-format safetensors
--model-impl torch
--mamba-backend slow
--hf-overrides {"text_config":{"n_group":8}}
--hf-overrides [1]
--hf-overrides text
--override-generation-config {"temperature":0.1}
--override-generation-config 1
--generation-config vllm
--default-chat-template-kwargs {"reasoning_effort":"high"}
--default-chat-template-kwargs high
--chat-template /nothing/here.jinja
--chat-template {{messages}}
--chat-template plain
--response-role model
--async-scheduling
--no-async-scheduling
--async-scheduling --distributed-executor-backend external_launcher
--scheduling-policy lifo
--gpu-memory-utilization 0
--gpu-memory-utilization 1.01
--gpu-memory-utilization 0.5
--kv-cache-memory-bytes 1G
--kv-cache-memory-bytes 1.5G
--device-ids 0,0
--device-ids 0,GPU-1
--device-ids 0
--disable-hybrid-kv-cache-manager
--no-disable-hybrid-kv-cache-manager
--kv-sharing-fast-prefill
--enable-sleep-mode
--enable-cumem-allocator
--safetensors-load-strategy torchao
--safetensors-load-strategy fast
--media-io-kwargs {"image":{}}
--media-io-kwargs 7
--seed 0
--seed x
--api-server-count 0
--api-server-count 2
--lora-modules a=/x
--enable-lora --lora-modules a=/x
--enable-lora --lora-modules a
--ubatch-size 1
--enable-dbo
--skip-tokenizer-init
--disable-sliding-window
--tensor-parallel-size 3
--tensor-parallel-size 5
--pipeline-parallel-size 3
--allowed-media-domains example.com
--logprobs-mode raw
--max-logprobs -2
--watermark 1
--prefix-caching-hash-algo md5
--show-hidden-metrics-for-version 0.1
--kv-cache-metrics-sample 0
--disable-log-requests
--swap-space 4
--enable-reasoning
--guided-decoding-backend xgrammar
--max-num-sequences 8
--no-enforce-eager
--no-disable-log-stats
--enable-prompt-embeds
--reasoning-config {"reasoning_start_str":"a"}
--pooler-config {"nothing":1}
--all2all-backend pplx
--expert-placement-strategy random
--enable-prefix-caching --prefix-match-unit 3
"""
"""One set a line: combinations, values of every registry, JSON, and what earlier versions had."""


def written() -> list[list[str]]:
    """The sets above."""
    return [line.split(" ") for line in WRITTEN.strip().splitlines()]


def generated(arguments: Mapping[str, Mapping[str, Any]]) -> Iterator[list[str]]:
    """Sets for every argument of a version: numbers around zero, a wrong word, an unknown key."""
    for name, one in arguments.items():
        if one.get("type") in {"integer", "number", "tokens", "tokens or auto"}:
            yield from ([f"--{name}", number] for number in ("-1", "0", "1"))
        for key, wrong in (("values", "nothing"), ("choices", "nothing"), ("keys", '{"nothing":1}')):
            if key in one:
                yield [f"--{name}", wrong]
        if "switch" in one:
            yield [f"--{name}=1"]
        if one.get("type") == "json":
            yield [f"--{name}", "{"]


ONLY_THE_LINTER = {
    "load-format": "fails later, when the weights are loaded",
    "model-impl": "fails later, when the model is built",
    "tool-call-parser": "fails later, at the first call of a tool, where --enable-auto-tool-choice is not set",
    "max-loras": "has no effect without --enable-lora",
    "max-lora-cls-labels": "has no effect without --enable-lora",
    "block-size": "fails later, when an attention backend is chosen",
    "max-model-len": "the linter refuses what the vendor does not support",
    "kv-cache-dtype": "fails later, on a GPU",
    "shutdown-timeout": "the linter refuses what systemd would cut",
}
"""Argument → why the linter refuses a value with which the configuration goes on."""

ONLY_HERE = {
    "chat-template": "the file is on the host",
    "enable-sleep-mode": "works on GPUs only",
    "enable-cumem-allocator": "works on GPUs only",
    "enable-eplb": "works on GPUs only",
    "enable-return-routed-experts": "0.32.0 and newer run it with the model runner for GPUs",
}
"""Argument → why vLLM refuses it where the comparison runs, and not on a host."""
