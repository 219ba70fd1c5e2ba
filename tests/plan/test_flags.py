"""The lint: what is known to fail is named, with evidence; what works passes."""

import pytest
from pulumi_vllm.plan import Deployment, LintError, catalogue, flags, plan

KNOWN = catalogue.load()
MODEL, ENGINE = KNOWN.models["mistral-small-4"], KNOWN.engines["0.26.0"]
OURS = {
    **MODEL.flags,
    **ENGINE.flags,
    "moe-backend": "triton",
    "tensor-parallel-size": 2,
    "max-model-len": 32768,
}


def lint(precision="fp8", count=2, waive=None, **changed):
    given = {name.replace("_", "-"): value for name, value in changed.items()}
    launch = flags.Launch({**OURS, **given}, {}, MODEL, MODEL.precisions[precision], ENGINE, count)
    return [(one.severity, one.rule) for one in flags.lint(launch, waive or {})]


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
        ({"load_format": "hf"}, ("error", "load-format")),
        ({"api_key": "x"}, ("error", "api-key")),
        ({"host": "0.0.0.0"}, ("error", "host")),
        ({"max_num_sequences": 8}, ("error", "unknown-flag")),
        ({"max_num_seqs": "many"}, ("error", "value")),
        ({"moe_backend": "trition"}, ("error", "value")),
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


@pytest.mark.parametrize(
    "given", [{"enable_prefix_caching": True}, {"dtype": "bfloat16"}, {"kv_cache_dtype": "auto"}]
)
def test_no_false_alarm(given):
    assert lint(**given) == []


def test_the_locks_hold_a_mistral_common_that_chats():
    for engine in KNOWN.engines.values():
        launch = flags.Launch(OURS, {}, MODEL, MODEL.precisions["fp8"], engine, 2)
        assert "mistral-common" not in [one.rule for one in flags.lint(launch, {})]


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
    assert len(refusal.value.mistakes) == 2


def test_a_finding_can_be_waived_and_shows():
    given = {"flags": {"kv-cache-dtype": "fp8"}, "waive": {"kv-cache-dtype": "trying a new kernel"}}
    decided = plan(Deployment.parse(block(**given)))
    assert "--kv-cache-dtype" in decided.argv
    assert any("Waived: trying a new kernel" in line for line in decided.because)
