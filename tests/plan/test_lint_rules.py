"""The lint rules: what is known to fail is reported with evidence; what works passes."""

from dataclasses import replace

import pytest
from pulumi_vllm.plan import Deployment, LintError, catalogue, explain, memory, plan, reasons
from pulumi_vllm.plan import lint as linter
from pulumi_vllm.plan.engine_arguments import EngineArguments, whole_number
from pulumi_vllm.plan.launch import Launch
from pulumi_vllm.plan.memory_settings import MemorySettings

KNOWN = catalogue.load()
MODEL, ENGINE = KNOWN.models["mistral-small-4"], KNOWN.engines["0.26.0"]
OURS = {
    **MODEL.flags,
    **ENGINE.flags,
    "host": "127.0.0.1",
    "moe-backend": "triton",
    "tensor-parallel-size": 2,
    "max-model-len": 32768,
}

LEFT_OUT = object()


def findings(precision="fp8", count=2, engine=ENGINE, environment=None, **changed):
    given = {name.replace("_", "-"): value for name, value in changed.items()}
    written = {name: value for name, value in {**OURS, **given}.items() if value is not LEFT_OUT}
    return examined(written, environment or {}, MODEL, MODEL.precisions[precision], engine, count)


def examined(flags, *launch):
    return linter.lint(Launch(EngineArguments.of(flags), *launch), {})


def lint(**changed):
    return [(one.severity, one.rule) for one in findings(**changed)]


def test_the_plans_own_arguments_pass():
    assert lint() == []


def test_vllms_own_recipe_has_only_a_warning():
    recipe = {"max_model_len": 262144, "max_num_batched_tokens": 16384, "max_num_seqs": 128}
    assert lint(moe_backend="auto", gpu_memory_utilization=0.8, **recipe) == [("warning", "moe-backend")]


@pytest.mark.parametrize(
    ("given", "finding"),
    [
        ({"dtype": "fp8"}, ("error", "dtype")),
        ({"kv_cache_dtype": "fp8"}, ("error", "kv-cache-dtype")),
        ({"kv_cache_dtype": "fp8", "attention_backend": "TRITON_MLA"}, ("error", "kv-cache-dtype")),
        ({"quantization": "int4"}, ("error", "quantization")),
        ({"quantization": "fp8"}, ("warning", "quantization")),
        ({"moe_backend": "cutlass"}, ("error", "moe-backend")),
        ({"shutdown_timeout": 0}, ("warning", "shutdown-timeout")),
        ({"shutdown_timeout": 60}, ("error", "shutdown-timeout")),
        ({"tensor_parallel_size": 3, "count": 3}, ("error", "tensor-parallel-size")),
        ({"tensor_parallel_size": 4}, ("error", "tensor-parallel-size")),
        ({"pipeline_parallel_size": 2}, ("error", "tensor-parallel-size")),
        ({"pipeline_parallel_size": 2, "tensor_parallel_size": 1}, ("warning", "unmodelled-memory")),
        ({"prefill_context_parallel_size": 2}, ("error", "tensor-parallel-size")),
        ({"tensor_parallel_size": 1}, ("error", "idle-gpus")),
        ({"tensor_parallel_size": LEFT_OUT}, ("error", "idle-gpus")),
        ({"data_parallel_size": 3, "count": 8}, ("error", "idle-gpus")),
        ({"kv_cache_dtype": "fp8_e5m2"}, ("error", "kv-cache-dtype")),
        ({"kv_cache_dtype": "nvfp4"}, ("error", "kv-cache-dtype")),
        ({"attention_backend": "FLASHMLA"}, ("error", "attention-backend")),
        ({"attention_backend": "CUTLASS_MLA"}, ("error", "attention-backend")),
        ({"gpu_memory_utilization": 1.5}, ("error", "gpu-memory-utilization")),
        ({"kv_cache_memory_bytes": "40G"}, ("warning", "unmodelled-memory")),
        ({"config_format": "hf"}, ("error", "load-format")),
        ({"host": LEFT_OUT}, ("warning", "listen-address")),
        ({"max_model_len": LEFT_OUT}, ("warning", "context-length")),
        ({"shutdown_timeout": LEFT_OUT}, ("warning", "shutdown-timeout")),
        ({"moe_backend": LEFT_OUT}, ("warning", "moe-backend")),
        ({"environment": {"VLLM_API_KEY": "x"}}, ("warning", "api-key")),
        ({"environment": {"HF_HUB_ENABLE_HF_TRANSFER": "1"}}, ("warning", "environment-variables")),
        ({"load_format": "hf"}, ("error", "load-format")),
        ({"api_key": "x"}, ("error", "api-key")),
        ({"host": "0.0.0.0"}, ("error", "listen-address")),
        ({"max_num_sequences": 8}, ("error", "unknown-flag")),
        ({"max_num_seqs": "many"}, ("error", "invalid-value")),
        ({"moe_backend": "trition"}, ("error", "invalid-value")),
        ({"max_model_len": "1.5K"}, ("error", "invalid-value")),
        ({"max_num_batched_tokens": "1.5"}, ("error", "invalid-value")),
        ({"max_num_batched_tokens": 1.5}, ("error", "invalid-value")),
        ({"max_model_len": 0}, ("error", "out-of-range")),
        ({"max_num_batched_tokens": 0}, ("error", "out-of-range")),
        ({"max_num_batched_tokens": -1}, ("error", "out-of-range")),
        ({"max_num_seqs": 0}, ("error", "out-of-range")),
        ({"tensor_parallel_size": 0}, ("error", "out-of-range")),
        ({"data_parallel_size": 0}, ("error", "out-of-range")),
        ({"max_num_batched_tokens": 128, "max_num_seqs": 256}, ("error", "batch-too-small")),
        ({"max_num_batched_tokens": "8k", "enable_chunked_prefill": False}, ("error", "batch-too-small")),
        ({"default_chat_template_kwargs": '{"reasoning_effort": "low"}'}, ("error", "reasoning-effort")),
        ({"max_model_len": 1048576}, ("error", "context-length")),
        ({"model": "mistralai/Mistral-Small-4"}, ("error", "unknown-repository")),
        ({"max_num_seqs": 768}, ("error", "sequences-without-graph")),
        ({"max_num_seqs": 256, "max_cudagraph_capture_size": 128}, ("error", "sequences-without-graph")),
        ({"max_num_seqs": 512, "cudagraph_capture_sizes": "1 2 256"}, ("error", "sequences-without-graph")),
        (
            {"max_num_seqs": 512, "compilation_config": '{"max_cudagraph_capture_size": 64}'},
            ("error", "sequences-without-graph"),
        ),
        (
            {"max_num_seqs": 512, "compilation_config": '{"cudagraph_capture_sizes": [1, 2, 256]}'},
            ("error", "sequences-without-graph"),
        ),
        ({"cudagraph_capture_sizes": "1 2 3 512"}, ("warning", "unmodelled-memory")),
        (
            {"cudagraph_capture_sizes": "1 2 256", "max_cudagraph_capture_size": 512},
            ("error", "conflicting-flags"),
        ),
        ({"enable_prefix_caching": False}, ("warning", "prefix-caching")),
        ({"speculative_config": "{}"}, ("warning", "speculative-decoding")),
        ({"precision": "nvfp4", "moe_backend": "humming"}, ("error", "moe-backend")),
    ],
)
def test_a_known_failure_is_found(given, finding):
    assert finding in lint(**given)


def test_an_engine_without_a_lock_may_install_a_broken_mistral_common():
    (found,) = findings(engine=replace(ENGINE, version="0.34.0"))
    assert (found.severity, found.rule) == ("warning", "mistral-common-version")
    assert found.message.endswith("pin mistral_common<1.13")


def test_every_finding_has_a_remedy_and_its_evidence():
    given = {"kv_cache_dtype": "fp8", "dtype": "fp8", "moe_backend": "auto", "shutdown_timeout": 0}
    for one in findings(**given, api_key="x", tensor_parallel_size=3, max_model_len=10**6, load_format="hf"):
        assert ";" in one.message, one
        assert one.evidence, one


@pytest.mark.parametrize(
    "given",
    [
        {"enable_prefix_caching": True},
        {"max_num_seqs": 512},
        {"max_num_seqs": 1000, "max_cudagraph_capture_size": 1008},
        {"max_num_seqs": 1000, "enforce_eager": True},
        {"max_num_seqs": 1000, "compilation_config": '{"cudagraph_mode": "NONE"}'},
        {"max_num_seqs": 512, "compilation_config": '{"cudagraph_capture_sizes": [1, 2, 512]}'},
        {"max_num_seqs": 256, "cudagraph_capture_sizes": "1 8 256", "max_cudagraph_capture_size": 256},
        {"max_num_seqs": 1000, "max_cudagraph_capture_size": 1024},
        {"dtype": "bfloat16"},
        {"kv_cache_dtype": "auto"},
        {"attention_backend": "TRITON_MLA"},
        {"enable_chunked_prefill": True},
        {"max_num_batched_tokens": "16k"},
        {"max_num_batched_tokens": "16.5k", "max_num_seqs": 256},
        {"max_num_batched_tokens": 256, "max_num_seqs": 256},
        {"max_num_batched_tokens": "32K", "enable_chunked_prefill": False},
        {"max_model_len": -1},
        {"max_model_len": "AUTO"},
        {"language_model_only": True},
        {"tensor_parallel_size": 8, "count": 8},
        {"tensor_parallel_size": 1, "count": 1},
    ],
)
def test_what_works_has_no_findings(given):
    assert lint(**given) == []


def test_the_locks_hold_a_mistral_common_that_can_chat():
    for engine in KNOWN.engines.values():
        found = examined(OURS, {}, MODEL, MODEL.precisions["fp8"], engine, 2)
        assert "mistral-common-version" not in [one.rule for one in found]


def dense(**changed):
    model = KNOWN.models["qwen2.5-32b-instruct"]
    given = {
        "max-model-len": 32768,
        "host": "127.0.0.1",
        "shutdown-timeout": 30,
        "tensor-parallel-size": 8,
        **changed,
    }
    found = examined(given, {}, model, model.precisions["bf16"], ENGINE, 8)
    return [(one.severity, one.rule) for one in found]


def test_rules_for_one_architecture_do_not_apply_to_another():
    assert dense() == []
    assert dense(**{"kv-cache-dtype": "fp8", "load-format": "hf"}) == []
    assert ("error", "tensor-parallel-size") in dense(**{"tensor-parallel-size": 5})  # 40 heads, 8 KV heads


def test_arguments_become_a_command_line():
    given = {"model": "/m", "enable-auto-tool-choice": True, "enable-prefix-caching": False}
    assert EngineArguments.of(given).command_line() == (
        "--model",
        "/m",
        "--enable-auto-tool-choice",
        "--no-enable-prefix-caching",
    )


def block(**engine):
    return {
        "model": "mistral-small-4",
        "context": "32Ki",
        "machine": {"gpu": "H200", "count": 2, "max_usd_per_hour": 9},
        "storage": "300GB",
        "access": {"allow": ["9.9.9.0/24"]},
        "engine": engine,
    }


def test_the_users_own_flags_are_linted_too():
    with pytest.raises(LintError) as refusal:
        plan(Deployment.parse(block(flags={"kv-cache-dtype": "fp8", "dtype": "fp8"})))
    assert len(refusal.value.errors) == 2
    plan(Deployment.parse(block(flags={"mm-tensor-ipc": "direct_rpc"})))


@pytest.mark.parametrize(
    "given",
    [
        {"gpu-memory-utilization": "high"},
        {"max-num-batched-tokens": "many"},
        {"tensor-parallel-size": "two"},
        {"gpu-memory-utilization": 1.5},
        {"pipeline-parallel-size": 2},
        {"mm-tensor-ipc": "torch_shm"},
    ],
)
def test_an_unreadable_value_is_one_error(given):
    with pytest.raises(LintError) as refusal:
        plan(Deployment.parse(block(flags=given)))
    (message,) = refusal.value.errors
    assert message.startswith(f"server.engine.flags: --{next(iter(given))}") or "data parallel" in message


def test_an_ignored_finding_is_still_shown():
    given = {"flags": {"kv-cache-dtype": "fp8"}, "ignore": {"kv-cache-dtype": "trying a new kernel"}}
    decided = plan(Deployment.parse(block(**given)))
    assert "--kv-cache-dtype" in decided.argv
    assert any("Ignored: trying a new kernel" in line for line in reasons.because(decided))
    (finding,) = explain.summary(decided)["findings"]
    assert (finding["rule"], finding["ignored"]) == ("kv-cache-dtype", "trying a new kernel")
    plain = plan(Deployment.parse(block()))
    assert decided.memory.kv_tokens == pytest.approx(2 * plain.memory.kv_tokens, abs=1)  # as measured


def test_idle_gpus_are_refused_and_get_no_evidence_of_another_launch():
    alone = {"flags": {"tensor-parallel-size": 1}}
    with pytest.raises(LintError, match="use 1 of the machine's 2 GPUs"):
        plan(Deployment.parse(block(**alone)))
    decided = plan(Deployment.parse(block(**alone, ignore={"idle-gpus": "the other is another service's"})))
    assert decided.measured == "no"
    assert decided.usd_per_million_output_tokens is None
    assert "GiB on each of 1 of 2x H200;" in " ".join(reasons.because(decided))
    assert not any("10,953" in line for line in reasons.because(decided))
    usual = plan(Deployment.parse(block()))
    assert usual.usd_per_million_output_tokens
    assert any("10,953" in line for line in reasons.because(usual))


def test_another_division_over_gpus_is_another_launch():
    piped = {"tensor-parallel-size": 1, "pipeline-parallel-size": 2}
    assert plan(Deployment.parse(block(flags=piped))).measured == "no"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("32768", 32768),
        (32768, 32768),
        (" 32k ", 32_000),
        ("32K", 32768),
        ("1.5k", 1500),
        ("25.6m", 25_600_000),
        ("1t", 10**12),
        ("2T", 2**41),
        ("1.5K", None),
        ("1.5", None),
        (1.5, None),
        ("1.k", None),
        ("k", None),
        ("-3", -3),
        ("-3k", None),
        ("9" * 400 + "k", None),
        (True, None),
        (None, None),
    ],
)
def test_a_count_is_read_as_vllm_reads_it(written, read):
    assert whole_number(written) == read


def test_a_batch_below_the_streams_of_a_stack_is_refused():
    with pytest.raises(LintError, match="below the 512 requests"):
        plan(Deployment.parse(block(flags={"max-num-batched-tokens": 128})))


@pytest.mark.parametrize(
    ("model", "ways", "remedy"),
    [
        ("qwen2.5-32b-instruct", 16, "does not divide the 40 attention heads; use 1 or 2 or 4 or 8"),
        ("qwen2.5-32b-instruct", 5, "does not divide the 8 KV heads; use 1 or 2 or 4 or 8"),
        ("mistral-small-4", 3, "does not divide the 32 attention heads; use 1 or 2 or 4 or 8"),
    ],
)
def test_a_wrong_division_names_the_allowed_ones(model, ways, remedy):
    one = KNOWN.models[model]
    precision = next(iter(one.precisions.values()))
    found = examined({"tensor-parallel-size": ways}, {}, one, precision, ENGINE, ways)
    assert [finding.message for finding in found if finding.rule == "tensor-parallel-size"] == [
        f"--tensor-parallel-size {ways} {remedy}"
    ]
    for right in (1, 2, 4, 8):
        found = examined({"tensor-parallel-size": right}, {}, one, precision, ENGINE, right)
        assert "tensor-parallel-size" not in [finding.rule for finding in found]


@pytest.mark.parametrize(("division", "machine"), [("tensor", "two H100"), ("data", "one H200")])
def test_the_memory_evidence_matches_the_parallelism(division, machine):
    model = KNOWN.models["mistral-small-4"]
    written = {
        **OURS,
        "tensor-parallel-size": 1,
        "gpu-memory-utilization": 1.0,
        f"{division}-parallel-size": 2,
    }
    budget = memory.budget(
        model.dimensions,
        model.precisions["fp8"],
        ENGINE,
        KNOWN.gpus["H200"],
        MemorySettings.of(EngineArguments.of(written), ENGINE, KNOWN.gpus["H200"], model.maximum_context),
    )
    launched = examined(written, {}, model, model.precisions["fp8"], ENGINE, 2, budget)
    (found,) = [one for one in launched if one.rule == "gpu-memory-utilization"]
    assert machine in found.evidence


@pytest.mark.parametrize(
    ("rule", "precision", "changed"),
    [
        ("nvfp4-on-hopper", "nvfp4", {}),
        ("kv-cache-dtype", "fp8", {"kv_cache_dtype": "fp8"}),
        ("attention-backend", "fp8", {"attention_backend": "CUTLASS_MLA"}),
        ("moe-backend", "fp8", {"moe_backend": "auto"}),
    ],
)
def test_what_was_learned_on_hopper_is_not_said_of_blackwell(rule, precision, changed):
    written = {**OURS, **{name.replace("_", "-"): value for name, value in changed.items()}}

    def rules(gpu):
        launch = Launch(
            EngineArguments.of(written),
            {},
            MODEL,
            MODEL.precisions[precision],
            ENGINE,
            2,
            gpu=KNOWN.gpus.get(gpu),
        )
        return {one.rule for one in linter.lint(launch, {})}

    assert rule in rules(None)
    assert rule in rules("H100")
    assert rule not in rules("B200")


def test_no_flag_of_hopper_is_set_on_another_card():
    """The MoE backend of the stacks was chosen on H100 and H200."""
    machine = {"gpu": "H200", "count": 2, "max_usd_per_hour": 9}
    block = {"model": "mistral-small-4", "context": "32Ki", "machine": machine, "storage": "300GB"}
    deployment = Deployment.parse(block | {"engine": {"version": "0.26.0"}})
    assert plan(deployment).arguments.flags["moe-backend"] == "triton"
    ampere = replace(KNOWN.gpus["H200"], compute_capability="8.0")
    other = replace(KNOWN, gpus={**KNOWN.gpus, "H200": ampere})
    assert "moe-backend" not in plan(deployment, catalogue=other).arguments.flags


@pytest.mark.parametrize(
    ("model", "effort", "reported"),
    [("gpt-oss-120b", "low", False), ("gpt-oss-120b", "none", True), ("llama-3.1-8b", "low", False)],
)
def test_reasoning_efforts_are_those_of_the_model(model, effort, reported):
    flags = {"model": "/models/x", "default-chat-template-kwargs": f'{{"reasoning_effort": "{effort}"}}'}
    known = KNOWN.models[model]
    found = examined(flags, {}, known, next(iter(known.precisions.values())), ENGINE, 1)
    assert ("reasoning-effort" in {one.rule for one in found}) == reported


def test_the_missing_tool_parser_is_that_of_the_model():
    known = KNOWN.models["gpt-oss-120b"]
    flags = {"model": "/models/x", "enable-auto-tool-choice": True}
    found = examined(flags, {}, known, known.precisions["mxfp4"], ENGINE, 1)
    assert any("add tool-call-parser: openai" in one.message for one in found)


@pytest.mark.parametrize(
    ("gpu", "precision", "flags", "rule", "said"),
    [
        ("A100 80GB", "fp8", {}, "weights-without-arithmetic", "A100 80GB (compute capability 8.0) has no"),
        ("A10", "fp8", {}, "weights-without-arithmetic", "by Marlin"),
        ("L40S", "fp8", {}, "weights-without-arithmetic", None),
        ("RTX 5090", "fp8", {}, "weights-without-arithmetic", None),
        ("L40S", "nvfp4", {}, "weights-without-arithmetic", "has no arithmetic in nvfp4"),
        ("RTX PRO 6000", "nvfp4", {}, "weights-without-arithmetic", None),
        ("B300", "nvfp4", {}, "weights-without-arithmetic", None),
        ("H100 PCIe", "nvfp4", {}, "nvfp4-on-hopper", "NVFP4 on Hopper"),
        ("H100 PCIe", "nvfp4", {}, "weights-without-arithmetic", None),
        ("A100 80GB", "fp8", {"moe-backend": "triton"}, "moe-backend", "vLLM takes Marlin"),
        ("L40S", "fp8", {"moe-backend": "triton"}, "moe-backend", None),
        ("H200", "fp8", {"moe-backend": "flashinfer_trtllm"}, "moe-backend", "is for Blackwell for data centres"),
        ("B200", "fp8", {"moe-backend": "flashinfer_trtllm"}, "moe-backend", None),
        ("RTX 5090", "fp8", {"moe-backend": "flashinfer_trtllm"}, "moe-backend", "this is RTX 5090"),
        ("A100 40GB", "fp8", {"kv-cache-dtype": "fp8"}, "kv-cache-dtype", "TRITON_MLA, the only backend"),
        ("L40S", "fp8", {"kv-cache-dtype": "fp8"}, "kv-cache-dtype", None),
        ("RTX PRO 6000", "fp8", {"attention-backend": "CUTLASS_MLA"}, "attention-backend", "this is RTX PRO 6000"),
        ("B200", "fp8", {"attention-backend": "CUTLASS_MLA"}, "attention-backend", None),
        ("L40S", "fp8", {"attention-backend": "FLASH_ATTN_MLA"}, "attention-backend", "is for Hopper"),
        ("L40S", "fp8", {}, "slow-links", "NVLink connects none of them (L40S)"),
        ("A100 80GB PCIe", "fp8", {}, "slow-links", None),
        ("A100 80GB PCIe", "fp8", {"tensor-parallel-size": 4}, "slow-links", "connects pairs of them only"),
        ("A100 80GB", "fp8", {"tensor-parallel-size": 4}, "slow-links", None),
        ("RTX 5090", "fp8", {"tensor-parallel-size": 1}, "slow-links", None),
        ("GH200", "fp8", {}, "processor", "Arm processor"),
        ("H200", "fp8", {}, "processor", None),
    ],
)  # fmt: skip
def test_rules_follow_model_precision_and_compute_capability(gpu, precision, flags, rule, said):
    written = {name: value for name, value in OURS.items() if name != "moe-backend"} | flags
    launch = Launch(
        EngineArguments.of(written), {}, MODEL, MODEL.precisions[precision], ENGINE, 2, gpu=KNOWN.gpus[gpu]
    )
    found = [one.message for one in linter.lint(launch, {}) if one.rule == rule]
    assert bool(found) == (said is not None), found
    assert said is None or said in found[0]


def test_a_gpu_without_bfloat16_is_told():
    old = replace(KNOWN.gpus["A10"], name="T4", compute_capability="7.5")
    model = KNOWN.models["llama-3.1-8b"]
    launch = Launch(
        EngineArguments.of({"model": "/m"}), {}, model, model.precisions["bf16"], ENGINE, 1, gpu=old
    )
    assert any(
        "T4 (compute capability 7.5) has no bfloat16" in one.message for one in linter.lint(launch, {})
    )
