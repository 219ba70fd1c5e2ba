"""From a stack file to a plan: what is decided, what is refused, what it costs."""

import json
import pathlib
import re
from dataclasses import replace

import pytest
from blocks import STACKS, block_of, machine
from hypothesis import given
from hypothesis import strategies as st
from pulumi_vllm.plan import (
    Deployment,
    DoesNotFit,
    LintError,
    Offer,
    catalogue,
    evidence,
    explain,
    memory_lines,
    plan,
    reasons,
)

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("stack", sorted(STACKS))
def test_every_stack_plans(stack):
    summary = explain.summary(plan(Deployment.parse(block_of(stack))))
    assert json.loads(json.dumps(summary)) == summary
    assert summary["usd_per_hour"] <= block_of(stack)["machine"]["max_usd_per_hour"]


def test_the_machine_of_the_tutorial():
    decided = plan(Deployment.parse(block_of("spheron-h200-2x-fp8")))
    words = " ".join(decided.argv)
    for flag in (
        "--tensor-parallel-size 2",
        "--moe-backend triton",
        "--max-num-seqs 512",
        "--shutdown-timeout 30",
    ):
        assert flag in words
    assert decided.engine.version == "0.33.0"
    assert decided.usd_per_hour == 7.92
    assert decided.weights_directory.endswith("/a11f36bebf709121056b1dbcc943d1c6afbe494d")


def test_the_local_stack_is_the_tiny_model_of_the_local_hub():
    record = json.loads((ROOT / "components/pulumi_vllm_local/tiny_model/record.json").read_text())
    decided = plan(Deployment.parse(block_of("local")))
    assert (decided.repository, decided.revision) == (record["repository"], record["revision"])
    sizes = sum(file["size"] for file in record["files"].values())
    assert decided.model.precisions["bf16"].bytes == sizes
    digests = {path: file["sha256"] for path, file in record["files"].items() if path != "README.md"}
    assert decided.model.precisions["bf16"].digests == digests
    assert {one.reasoning_effort: one.sha256_12 for one in decided.model.golden} == record["golden"]["tokens"]
    assert decided.environment["VLLM_MLA_DISABLE"] == "1"


def test_a_volume_that_is_too_small_is_refused():
    with pytest.raises(DoesNotFit) as refusal:
        plan(Deployment.parse(machine("H200", 1, precision="nvfp4", context="256Ki", storage="60GB")))
    (sentence,) = refusal.value.errors
    assert sentence.startswith("server.storage: 60 GB are less than")


@pytest.mark.parametrize(("gpu", "count"), [("H100", 1)])
def test_what_does_not_fit_is_refused_with_the_missing_gib(gpu, count):
    with pytest.raises(DoesNotFit, match="GiB per GPU are missing"):
        plan(Deployment.parse(machine(gpu, count)))


def test_the_error_names_what_would_fit():
    flags = {"engine": {"flags": {"gpu-memory-utilization": 0.9}}, "concurrency": 8}
    with pytest.raises(DoesNotFit) as refusal:
        plan(Deployment.parse(machine("H100", 1, precision="nvfp4", context="256Ki", **flags)))
    (sentence,) = refusal.value.errors
    found = re.search(r"use context (\d+) here or (\d)x (H\d+) \(\$[\d.]+/h\)$", sentence)
    fitting = machine("H100", 1, precision="nvfp4", context=int(found[1]), **flags)
    assert plan(Deployment.parse(fitting)).memory.fits
    other = machine(found[3], int(found[2]), precision="nvfp4", context="256Ki", **flags)
    assert plan(Deployment.parse(other)).memory.fits


@pytest.mark.parametrize(
    ("billing", "nearest"), [("on-demand", "1x H200 ($3.96/h)"), ("spot", "2x H100 ($1.60/h)")]
)
def test_the_nearest_machine_is_the_cheapest_of_that_billing(billing, nearest):
    wanted = machine("H100", 1, precision="fp8")
    wanted["machine"] |= {"billing": billing}
    with pytest.raises(DoesNotFit) as refusal:
        plan(Deployment.parse(wanted))
    assert refusal.value.errors[0].endswith(f"use precision nvfp4 here or {nearest}")


def test_every_figure_has_a_label_of_the_four():
    for stack in STACKS:
        found = explain.summary(plan(Deployment.parse(block_of(stack))))
        wanted = {
            "fits", "weights_gib_per_gpu", "kv_cache_gib_per_gpu", "kv_cache_tokens", "usd_per_hour",
            "usd_per_million_output_tokens", "flags", "findings", "because", "machine", "billing", "model", "precision",
            "engine", "disk_gib", "budget",
        }  # fmt: skip
        assert wanted <= found["labels"].keys() <= found.keys()
        assert {one.partition(":")[0] for one in found["labels"].values()} <= {
            "asked", "measured", "computed", "unverified",
        }  # fmt: skip


def test_what_was_measured_with_one_model_is_not_measured_with_another():
    wanted = {**block_of("spheron-h200-2x-fp8"), "model": "qwen2.5-32b-instruct", "precision": "bf16"}
    found = explain.summary(plan(Deployment.parse(wanted)))
    (other,) = [line for line in found["budget"] if line.startswith("other")]
    assert other.endswith("(unverified: measured with mistral-small-4 on H100 and H200 (SXM) only)")
    ours = explain.summary(plan(Deployment.parse(block_of("spheron-h200-2x-fp8"))))
    assert "and vLLM reported 3,4" in ours["labels"]["kv_cache_tokens"]
    assert "(measured)" in next(line for line in ours["budget"] if line.startswith("other"))


def test_a_spot_machine_is_priced_by_the_hour_of_serving():
    wanted = machine("H200", 2)
    wanted["machine"] |= {"billing": "spot", "fallback": "on-demand"}
    said = " ".join(reasons.because(plan(Deployment.parse(wanted))))
    assert "$3.90/h" in said
    assert "it serves 9" in said
    assert "per hour of serving (interruptions assumed; machine 240 s" in said


@pytest.mark.parametrize(
    ("asked", "captured"),
    [
        ({"profile": "throughput"}, 512),
        ({"profile": "latency"}, None),
        ({"profile": "throughput", "engine": {"version": "0.26.0"}}, None),
        ({"concurrency": 257}, 272),
        ({"profile": "batch"}, 1024),
        ({"profile": "batch", "engine": {"version": "0.26.0"}}, 512),
        ({"concurrency": 1000}, 1008),
        ({"concurrency": 2048}, 2048),
    ],
)
def test_every_number_of_requests_has_a_cuda_graph(asked, captured):
    decided = plan(Deployment.parse(machine("H200", 1, context="32Ki", **asked)))
    assert decided.arguments.capture_size == captured
    assert not [one for one in decided.findings if one.rule == "sequences-without-graph"]


FEW = "1 2 4 8 16 24 32 40 48 56 64 80 96 112 128 160 192 224 256"
"""Sizes of CUDA graphs of one GPU with vLLM 0.33.0, up to 256."""


@pytest.mark.parametrize(
    ("count", "asked", "sizes"),
    [
        (1, {"concurrency": 512}, f"{FEW} 288 320 384 448 512"),
        (1, {"concurrency": 256}, f"{FEW} 288 320 384 448 512"),
        (1, {"concurrency": 300}, f"{FEW} 288 304"),
        (1, {"concurrency": 255}, None),
        (1, {"concurrency": 513}, None),
        (2, {"concurrency": 1024}, f"{FEW} 288 320 384 448 512"),
        (2, {"concurrency": 256, "engine": {"version": "0.33.0"}}, None),
        (1, {"concurrency": 512, "engine": {"version": "0.26.0"}}, None),
    ],
)
def test_an_engine_of_one_gpu_captures_half_of_the_graphs(count, asked, sizes):
    decided = plan(Deployment.parse(machine("H200", count, context="32Ki", **asked)))
    assert decided.arguments.flags.get("cudagraph-capture-sizes") == sizes
    assert ("ready 20 s sooner" in " ".join(reasons.because(decided))) == (sizes is not None)
    assert not [
        one for one in decided.findings if one.rule in {"sequences-without-graph", "unmodelled-memory"}
    ]


@pytest.mark.parametrize(
    "own",
    [
        {"cudagraph-capture-sizes": [8, 512]},
        {"max-cudagraph-capture-size": 512},
        {"compilation-config": {"cudagraph_capture_sizes": [8, 512]}},
        {"compilation-config": {"cudagraph_mode": "FULL_DECODE_ONLY"}},
        {"enforce-eager": True},
        {"speculative-config": {"method": "ngram", "num_speculative_tokens": 2}},
    ],
)
def test_a_stack_file_that_decides_the_graphs_is_not_overruled(own):
    own_flags = {"concurrency": 512, "context": "32Ki", "engine": {"version": "0.33.0", "flags": own}}
    flags = plan(Deployment.parse(machine("H200", 1, **own_flags))).arguments.flags
    assert ("cudagraph-capture-sizes" in flags) == ("cudagraph-capture-sizes" in own)
    listed = "cudagraph_capture_size" in str(own) or "cudagraph-capture-sizes" in own
    assert ("max-cudagraph-capture-size" in flags) != listed


@pytest.mark.parametrize("sizes", ["1 2 4", "1 64", "1 2 4 8 16 24 32 40 48 56 64"])
def test_the_remedy_for_too_small_a_list_of_graphs_works(sizes):
    def decide(listed):
        own = {"engine": {"version": "0.33.0", "flags": {"cudagraph-capture-sizes": listed}}}
        return plan(Deployment.parse(machine("H200", 1, context="32Ki", concurrency=512, **own)))

    with pytest.raises(LintError, match="add 512 to the listed sizes"):
        decide(sizes)
    assert decide(f"{sizes} 512").arguments.capture_size == 512


@pytest.mark.parametrize("own", [{"enforce-eager": False}, {"enable-prefix-caching": True}])
def test_a_flag_that_is_vllms_default_keeps_the_measured_rate(own):
    plain = machine("H200", 1, context="256Ki", concurrency=512, engine={"version": "0.33.0"})
    written = {**plain, "engine": {"version": "0.33.0", "flags": own}}
    decided = [plan(Deployment.parse(one)) for one in (plain, written)]
    assert decided[0].rate is not None
    assert [one.rate for one in decided] == [decided[0].rate] * 2
    assert [one.measured for one in decided] == ["yes", "yes"]


def test_a_remedy_of_several_engines_is_for_each():
    wanted = machine("H200", 2, context="32Ki", concurrency=2048)
    wanted["machine"]["engines"] = 2
    wanted["engine"] = {"version": "0.33.0", "flags": {"cudagraph-capture-sizes": "1 512"}}
    with pytest.raises(LintError, match="use 512 sequences for each of 2 engines"):
        plan(Deployment.parse(wanted))


def test_fewer_graphs_than_requests_are_refused():
    flags = {"flags": {"max-cudagraph-capture-size": 256}}
    with pytest.raises(LintError, match="takes longer; set --max-cudagraph-capture-size 1024"):
        plan(Deployment.parse(machine("H200", 1, context="32Ki", profile="batch", engine=flags)))


def test_the_batch_profile_is_measured_on_one_h200():
    decided = plan(
        Deployment.parse(
            machine("H200", 1, precision="fp8", context="32Ki", profile="batch", engine={"version": "0.26.0"})
        )
    )
    assert decided.measured == "yes"
    assert decided.rate.levels == (512,)
    assert decided.memory.kv_tokens == pytest.approx(decided.measured_run.kv_tokens, rel=0.005)


@pytest.mark.parametrize(
    ("count", "precision", "context", "profile", "graphs_gib"),
    [
        (1, "fp8", "256Ki", "throughput", 0.94),
        (1, "fp8", "256Ki", "batch", 1.57),
        (1, "nvfp4", "256Ki", "throughput", 0.94),
        (2, "fp8", "32Ki", "throughput", 0.94),
    ],
)
def test_a_newer_engine_is_measured(count, precision, context, profile, graphs_gib):
    asked = {"precision": precision, "context": context, "profile": profile, "engine": {"version": "0.33.0"}}
    decided = plan(Deployment.parse(machine("H200", count, **asked)))
    assert decided.measured == "yes"
    measured = decided.measured_run.kv_tokens
    assert 0.99 * measured <= decided.memory.kv_tokens <= measured
    assert decided.memory.graphs_gib == 0
    lines = memory_lines.lines(decided.memory, decided.model.name, decided.selection.gpu)
    assert f"CUDA graphs {graphs_gib} GiB above vLLM's limit (computed)" in lines
    assert "CUDA graphs" not in memory_lines.drawing(decided.memory, lambda text, _colour: text)
    assert decided.environment["VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS"] == "0"
    assert decided.environment.get("VLLM_ALLREDUCE_USE_FLASHINFER") == ("0" if count > 1 else None)
    assert {one.rule for one in decided.findings} <= {"nvfp4-on-hopper"}
    given = int(decided.arguments.flags["kv-cache-memory-bytes"])
    assert given // decided.memory.kv_bytes_per_token == decided.memory.kv_tokens // 16 * 16
    assert "so that a start does not profile the memory" in " ".join(reasons.because(decided))


@pytest.mark.parametrize(
    "changed",
    [{"context": "64Ki"}, {"engine": {"version": "0.26.0"}}, {"engine": {"flags": {"enforce-eager": True}}}],
)
def test_only_a_launch_that_was_measured_gets_the_size_of_its_cache(changed):
    """Elsewhere vLLM's own profile decides, because the plan may be wrong by more than the room above the limit."""
    decided = plan(Deployment.parse(block_of("spheron-h200-1x-fp8") | changed))
    assert "kv-cache-memory-bytes" not in decided.arguments.flags


def test_the_users_own_size_of_the_cache_is_kept_and_is_another_launch():
    own = {"engine": {"version": "0.33.0", "flags": {"kv-cache-memory-bytes": 10**10}}}
    decided = plan(Deployment.parse(block_of("spheron-h200-1x-fp8") | own))
    assert (decided.arguments.flags["kv-cache-memory-bytes"], decided.measured) == (10**10, "other flags")


@pytest.mark.parametrize("name", sorted({run.gpu for run in catalogue.load().measured if run.flags}))
def test_the_default_engine_is_the_newest_with_evidence_on_that_gpu(name):
    def order(version):
        return tuple(map(int, version.split(".")))

    started = {run.engine for run in catalogue.load().measured if run.gpu == name and run.flags}
    assert catalogue.load().default_engine(catalogue.load().gpus[name]).version == max(started, key=order)


def test_flags_that_change_memory_count():
    def memory(**flags):
        return plan(Deployment.parse(machine(engine={"flags": flags}))).memory

    assert memory(**{"enforce-eager": True}).graphs_gib == 0
    assert memory(**{"max-num-batched-tokens": "16k"}).activation_gib > memory().activation_gib
    assert memory(**{"language-model-only": True}).weights_gib == pytest.approx(
        memory().weights_gib - 428_472_320 * 2 / 2**30 / 2  # two GPUs
    )


def test_all_models_are_pinned():
    for model in catalogue.load().models.values():
        for precision in model.precisions.values():
            assert len(precision.revision) == 40
            assert set(precision.revision) <= set("0123456789abcdef")
            assert precision.revision != "0" * 40


def offer(usd, **changed):
    fields = {
        "provider": "spheron-es", "offer_id": "o", "gpu_type": "H200_SXM5", "gpu": "H200", "gpu_count": 2,
        "gpu_memory_gb": 141, "usd_per_hour": usd, "billing": "on-demand", "regions": ("EU",),
        "operating_systems": ("Ubuntu",), "supports_cloud_init": False, "mount_kind": "virtiofs", "name": "n",
        "maintenance": False, "minimum_runtime_min": 20,
    }  # fmt: skip
    return Offer(**{**fields, **changed})


@given(st.lists(st.floats(0.01, 100), min_size=1))
def test_the_cheapest_fitting_offer_is_the_price(prices):
    offers = [offer(usd) for usd in prices] + [offer(0.001, gpu_count=1), offer(0.001, maintenance=True)]
    assert plan(Deployment.parse(machine()), offers).usd_per_hour == min(prices)


def test_no_offer_is_no_price():
    decided = plan(Deployment.parse(machine()), ())
    assert decided.usd_per_hour is None
    assert any("no on-demand offer of 2x H200 today" in line for line in reasons.because(decided))


def test_measured_and_unmeasured_machines_are_labelled():
    def said(*machine_):
        return " ".join(reasons.because(plan(Deployment.parse(machine(*machine_)))))

    assert "10,953 output tokens/s at 512 streams" in said("H200", 2)
    assert "$0.20 per million output tokens" in said("H200", 2)
    assert "never started on 4x H100" in said("H100", 4)


def test_the_local_stack_is_labelled_as_started_by_the_tests():
    own = {"engine": {"flags": {"enable-prefix-caching": False}}}
    for more, label in (({}, "measured: started by the tests"), (own, "unverified: never started on CPU")):
        summary = explain.summary(plan(Deployment.parse(block_of("local") | more)))
        assert summary["labels"]["flags"].startswith(label)
        assert "0x" not in json.dumps(summary)


def test_only_exactly_the_flags_that_were_started_count_as_measured():
    known = catalogue.load()

    def decided(**changed):
        engine = {"version": "0.26.0", **changed.pop("engine", {})}
        fields = {"precision": "fp8", "context": "256Ki", "concurrency": 256, "engine": engine, **changed}
        return plan(Deployment.parse(machine("H200", 1, **fields)), catalogue=known)

    now = decided()
    runs = [
        replace(one, flags=evidence.recorded_flags(now.argv))
        for one in known.measured
        if one.flags and one.gpu == "H200"
    ]
    known = replace(known, measured=tuple(runs))
    for changed, reason, measured in (
        ({}, "with exactly these flags", "yes"),
        ({"context": "128Ki"}, "other flags (--max-model-len 262144) were", "other flags"),
        ({"concurrency": 128}, "other flags (--max-num-seqs 256) were", "other flags"),
        (
            {"engine": {"flags": {"enable-log-requests": True}}},
            "other flags (without --enable-log-requests) were",
            "other flags",
        ),
        (
            {"engine": {"flags": {"language-model-only": True}}},
            "(--gpu-memory-utilization 0.94, --max-num-batched-tokens 8192, without --language-model-only) were",
            "other flags",
        ),
    ):
        found = decided(**changed)
        assert reason in " ".join(reasons.because(found))
        assert found.measured == measured


@pytest.mark.parametrize(
    ("flags", "most", "too_much"),
    [
        ({"language-model-only": True}, 0.98, 0.99),
        ({"limit-mm-per-prompt": '{"image": 0}'}, 0.98, 0.99),
        ({}, 0.94, 0.95),
    ],
)
def test_a_utilization_that_ran_out_of_memory_is_refused(flags, most, too_much):
    """Text alone: 0.98 started on one H200 and 0.99 did not; images take more beyond the limit."""

    def fits(utilization):
        asked = {"gpu-memory-utilization": utilization, **flags}
        wanted = machine(
            "H200",
            1,
            precision="fp8",
            context="256Ki",
            concurrency=256,
            engine={"version": "0.26.0", "flags": asked},
        )
        return plan(Deployment.parse(wanted)).memory.fits

    assert fits(most)
    remedy = (
        "use 0.94 or less, or a smaller max-num-batched-tokens, or language-model-only$"
        if not flags
        else "use 0.98 or less$"
    )
    with pytest.raises(DoesNotFit, match=f"gpu-memory-utilization: .*{remedy}"):
        fits(too_much)


def test_the_evidence_names_entries_of_the_catalogue():
    known = catalogue.load()
    for row in known.measured:
        assert row.precision in known.models[row.model].precisions
        assert row.engine in known.engines
        assert row.gpu in known.gpus
