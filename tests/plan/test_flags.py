"""The lint: what is known to fail is named, with evidence; what works passes."""

import pytest
from pulumi_vllm.plan import Deployment, LintError, catalogue, flags, memory, plan
from pulumi_vllm.plan import engine_arguments as load

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
    launch = flags.Launch(written, environment or {}, MODEL, MODEL.precisions[precision], engine, count)
    return flags.lint(launch, {})


def lint(**changed):
    return [(one.severity, one.rule) for one in findings(**changed)]


def test_ours_pass():
    assert lint() == []


def test_the_recipe_of_the_engine_has_only_a_warning():
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
        ({"tensor_parallel_size": 3, "count": 3}, ("error", "tensor-parallel")),
        ({"tensor_parallel_size": 4}, ("error", "tensor-parallel")),
        ({"pipeline_parallel_size": 2}, ("error", "tensor-parallel")),
        ({"pipeline_parallel_size": 2, "tensor_parallel_size": 1}, ("warning", "uncounted")),
        ({"prefill_context_parallel_size": 2}, ("error", "tensor-parallel")),
        ({"tensor_parallel_size": 1}, ("error", "idle-gpus")),
        ({"tensor_parallel_size": LEFT_OUT}, ("error", "idle-gpus")),
        ({"data_parallel_size": 3, "count": 8}, ("error", "idle-gpus")),
        ({"kv_cache_dtype": "fp8_e5m2"}, ("error", "kv-cache-dtype")),
        ({"kv_cache_dtype": "nvfp4"}, ("error", "kv-cache-dtype")),
        ({"attention_backend": "FLASHMLA"}, ("error", "attention-backend")),
        ({"attention_backend": "CUTLASS_MLA"}, ("error", "attention-backend")),
        ({"gpu_memory_utilization": 1.5}, ("error", "utilization")),
        ({"kv_cache_memory_bytes": "40G"}, ("warning", "uncounted")),
        ({"config_format": "hf"}, ("error", "load-format")),
        ({"host": LEFT_OUT}, ("warning", "host")),
        ({"max_model_len": LEFT_OUT}, ("warning", "context")),
        ({"shutdown_timeout": LEFT_OUT}, ("warning", "shutdown-timeout")),
        ({"moe_backend": LEFT_OUT}, ("warning", "moe-backend")),
        ({"environment": {"VLLM_API_KEY": "x"}}, ("warning", "api-key")),
        ({"environment": {"HF_HUB_ENABLE_HF_TRANSFER": "1"}}, ("warning", "environment")),
        ({"load_format": "hf"}, ("error", "load-format")),
        ({"api_key": "x"}, ("error", "api-key")),
        ({"host": "0.0.0.0"}, ("error", "host")),
        ({"max_num_sequences": 8}, ("error", "unknown-flag")),
        ({"max_num_seqs": "many"}, ("error", "value")),
        ({"moe_backend": "trition"}, ("error", "value")),
        ({"max_model_len": "1.5K"}, ("error", "value")),
        ({"max_num_batched_tokens": "1.5"}, ("error", "value")),
        ({"max_num_batched_tokens": 1.5}, ("error", "value")),
        ({"max_model_len": 0}, ("error", "below-one")),
        ({"max_num_batched_tokens": 0}, ("error", "below-one")),
        ({"max_num_batched_tokens": -1}, ("error", "below-one")),
        ({"max_num_seqs": 0}, ("error", "below-one")),
        ({"tensor_parallel_size": 0}, ("error", "below-one")),
        ({"data_parallel_size": 0}, ("error", "below-one")),
        ({"max_num_batched_tokens": 128, "max_num_seqs": 256}, ("error", "batched-tokens")),
        ({"max_num_batched_tokens": "8k", "enable_chunked_prefill": False}, ("error", "batched-tokens")),
        ({"default_chat_template_kwargs": '{"reasoning_effort": "low"}'}, ("error", "reasoning-effort")),
        ({"max_model_len": 1048576}, ("error", "context")),
        ({"model": "mistralai/Mistral-Small-4"}, ("error", "repository")),
        ({"enable_prefix_caching": False}, ("warning", "prefix-caching")),
        ({"speculative_config": "{}"}, ("warning", "speculative")),
        ({"precision": "nvfp4", "moe_backend": "humming"}, ("error", "moe-backend")),
    ],
)
def test_known_failures(given, finding):
    assert finding in lint(**given)


def test_every_finding_has_a_remedy_and_its_evidence():
    given = {"kv_cache_dtype": "fp8", "dtype": "fp8", "moe_backend": "auto", "shutdown_timeout": 0}
    for one in findings(**given, api_key="x", tensor_parallel_size=3, max_model_len=10**6, load_format="hf"):
        assert ";" in one.sentence, one
        assert one.evidence, one


@pytest.mark.parametrize(
    "given",
    [
        {"enable_prefix_caching": True},
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
def test_no_false_alarm(given):
    assert lint(**given) == []


def test_the_locks_hold_a_mistral_common_that_chats():
    for engine in KNOWN.engines.values():
        launch = flags.Launch(OURS, {}, MODEL, MODEL.precisions["fp8"], engine, 2)
        assert "mistral-common" not in [one.rule for one in flags.lint(launch, {})]


def dense(**changed):
    model = KNOWN.models["qwen2.5-32b-instruct"]
    given = {
        "max-model-len": 32768,
        "host": "127.0.0.1",
        "shutdown-timeout": 30,
        "tensor-parallel-size": 8,
        **changed,
    }
    launch = flags.Launch(given, {}, model, model.precisions["bf16"], ENGINE, 8)
    return [(one.severity, one.rule) for one in flags.lint(launch, {})]


def test_rules_of_one_architecture_leave_another_alone():
    assert dense() == []
    assert dense(**{"kv-cache-dtype": "fp8", "load-format": "hf"}) == []
    assert ("error", "tensor-parallel") in dense(**{"tensor-parallel-size": 5})  # 40 heads, 8 KV heads


def test_argv():
    given = {"model": "/m", "enable-auto-tool-choice": True, "enable-prefix-caching": False}
    assert flags.argv(given) == ("--model", "/m", "--enable-auto-tool-choice", "--no-enable-prefix-caching")


def block(**engine):
    return {
        "model": "mistral-small-4",
        "context": "32Ki",
        "machine": {"gpu": "H200", "count": 2, "max_usd_per_hour": 9},
        "storage": "300GB",
        "access": {"allow": ["203.0.113.0/24"]},
        "engine": engine,
    }


def test_a_user_flag_passes_the_same_lint():
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
def test_a_value_that_no_parser_reads_is_a_sentence(given):
    with pytest.raises(LintError) as refusal:
        plan(Deployment.parse(block(flags=given)))
    (sentence,) = refusal.value.errors
    assert sentence.startswith(f"server.engine.flags: --{next(iter(given))}") or "data parallel" in sentence


def test_a_finding_can_be_ignored_and_shows():
    given = {"flags": {"kv-cache-dtype": "fp8"}, "ignore": {"kv-cache-dtype": "trying a new kernel"}}
    decided = plan(Deployment.parse(block(**given)))
    assert "--kv-cache-dtype" in decided.argv
    assert any("Ignored: trying a new kernel" in line for line in decided.because)
    (finding,) = decided.summary()["findings"]
    assert (finding["rule"], finding["ignored"]) == ("kv-cache-dtype", "trying a new kernel")
    plain = plan(Deployment.parse(block()))
    assert decided.memory.kv_tokens == pytest.approx(2 * plain.memory.kv_tokens, abs=1)  # as measured


def test_gpus_that_idle_are_refused_and_take_no_figures_of_another_launch():
    alone = {"flags": {"tensor-parallel-size": 1}}
    with pytest.raises(LintError, match="use 1 of the machine's 2 GPUs"):
        plan(Deployment.parse(block(**alone)))
    decided = plan(Deployment.parse(block(**alone, ignore={"idle-gpus": "the other is another service's"})))
    assert decided.measured == "no"
    assert decided.usd_per_million_output_tokens is None
    assert "GiB on each of 1 of 2x H200;" in " ".join(decided.because)
    assert not any("7,167" in line for line in decided.because)
    usual = plan(Deployment.parse(block()))
    assert usual.usd_per_million_output_tokens
    assert any("7,167" in line for line in usual.because)


def test_a_model_divided_in_another_way_is_another_launch():
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
    assert load.whole(written) == read


def test_a_batch_below_the_streams_of_a_stack_is_refused():
    with pytest.raises(LintError, match="below the 256 requests"):
        plan(Deployment.parse(block(flags={"max-num-batched-tokens": 128})))


@pytest.mark.parametrize(
    ("model", "ways", "remedy"),
    [
        ("qwen2.5-32b-instruct", 16, "does not divide the 40 attention heads; use 1 or 2 or 4 or 8"),
        ("qwen2.5-32b-instruct", 5, "does not divide the 8 KV heads; use 1 or 2 or 4 or 8"),
        ("mistral-small-4", 3, "does not divide the 32 attention heads; use 1 or 2 or 4 or 8"),
    ],
)
def test_a_wrong_division_names_the_right_ones(model, ways, remedy):
    one = KNOWN.models[model]
    launch = flags.Launch(
        {"tensor-parallel-size": ways}, {}, one, next(iter(one.precisions.values())), ENGINE, ways
    )
    assert [found.sentence for found in flags.lint(launch, {}) if found.rule == "tensor-parallel"] == [
        f"--tensor-parallel-size {ways} {remedy}"
    ]
    for right in (1, 2, 4, 8):
        flags_ = {"tensor-parallel-size": right}
        launch = flags.Launch(flags_, {}, one, next(iter(one.precisions.values())), ENGINE, right)
        assert "tensor-parallel" not in [found.rule for found in flags.lint(launch, {})]


@pytest.mark.parametrize(("division", "machine"), [("tensor", "two H100"), ("data", "one H200")])
def test_the_evidence_about_the_memory_is_of_a_launch_with_that_headroom(division, machine):
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
        load.load_of(written, ENGINE, model.maximum_context),
    )
    launch = flags.Launch(written, {}, model, model.precisions["fp8"], ENGINE, 2, budget)
    (found,) = [one for one in flags.lint(launch, {}) if one.rule == "utilization"]
    assert machine in found.evidence
