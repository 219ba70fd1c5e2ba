"""The memory arithmetic against what vLLM reported on real GPUs, and its laws."""

import json
import re

import fit_memory
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pulumi_vllm.plan import activation_memory, catalogue, cuda_graphs, memory, memory_settings, weight_memory
from pulumi_vllm.plan.engine_arguments import UNLIMITED_IMAGES
from pulumi_vllm.plan.memory_settings import MemorySettings

KNOWN = catalogue.load()
MODEL = KNOWN.models["mistral-small-4"]
ENGINE = KNOWN.engines["0.26.0"]


def budget(gpu, precision, parallel, context, sequences, *, vision=False):
    load = MemorySettings(parallel, context, sequences, 0.95, 8192, UNLIMITED_IMAGES if vision else 0)
    return memory.budget(MODEL.dimensions, MODEL.precisions[precision], ENGINE, KNOWN.gpus[gpu], load)


def test_every_start_is_predicted_without_itself():
    for row in fit_memory.ROWS:
        found = row.predict(fit_memory.fit([other for other in fit_memory.ROWS if other is not row]))
        assert found.weights_gib == pytest.approx(row.weights_gib, rel=0.005), row.name
        assert 0.97 * row.kv_tokens <= found.kv_tokens <= 1.01 * row.kv_tokens, row.name
        assert found.short_gib == 0, row.name


def test_several_gpus_leave_room_for_what_0_95_ran_out_of():
    for gpu, count in (("H100", 2), ("H100", 4), ("H200", 2)):
        load = MemorySettings(count, 32768, 256, 0.95, 8192, images=0)
        sizes = (MODEL.dimensions, MODEL.precisions["fp8"], ENGINE, KNOWN.gpus[gpu])
        found, asked = memory.safe_budget(*sizes, load), memory.budget(*sizes, load)
        assert found.fits
        assert found.above_limit_gib > 4.14  # what two H100 wanted before they were lost
        assert asked.fits is (found == asked) is (gpu == "H200")


def test_what_images_ended_on_cards_is_refused_and_what_they_did_not_is_taken():
    """Requests with five images, in some runs after a prompt of nearly the context."""
    outcomes = {run["run"]: run.get("died_of") for _, run in fit_memory.runs() if run.get("images")}
    rows = {row.run: row for row in fit_memory.held_out() if row.run in outcomes}
    assert sorted(map(bool, outcomes.values())) == [False] * 11 + [True] * 3
    for name, died in outcomes.items():
        found = rows[name].predict({})
        assert found.short_gib == 0
        if died:
            wanted, free = re.search(
                r"allocate ([\d.]+) GiB.* of which ([\d.]+ [GM]iB) is free", died
            ).groups()
            missing = float(wanted) - float(free[:-4]) / (1024 if "M" in free else 1)
            assert found.beyond_gib >= found.above_limit_gib + missing, name
    evidence = [json.loads(path.read_text()) for path in fit_memory.EVIDENCE.glob("0.26.0/*.json")]
    shipped = [run["run"] for run in evidence if run.get("images")]
    assert len(shipped) == 8
    assert all(rows[name].predict({}).fits for name in shipped)
    smaller = rows["1x-nvfp4-32ki-batch-4096"]
    sizes = (MODEL.dimensions, MODEL.precisions["nvfp4"], ENGINE, KNOWN.gpus["H100"])
    assert memory.safe_budget(*sizes, smaller.load).limit_gib == pytest.approx(0.94 * 79.18)


@pytest.mark.parametrize(
    ("gpus", "batch", "images", "room"),
    [
        (1, 2048, 1, 3.6),
        (1, 4096, 1, 3.6),
        (1, 4097, 1, 4.5),
        (1, 16384, 1, 4.5),
        (1, 4096, 0, 1.0),
        (2, 4096, 1, 5.0),
    ],
)
def test_the_room_for_fragments(gpus, batch, images, room):
    load = MemorySettings(gpus, 32768, 256, 0.95, batch, images)
    found = memory.budget(MODEL.dimensions, MODEL.precisions["fp8"], ENGINE, KNOWN.gpus["H200"], load)
    assert found.headroom_gib == room


def test_what_lives_beside_a_patch_is_what_the_starts_say():
    found = [widths for _, widths in fit_memory.image_streams()]
    assert len(found) > 20
    assert ENGINE.memory["image_stream"] == pytest.approx(sum(found) / len(found), abs=0.1)
    assert max(found) - min(found) < 0.4  # GiB are reported with two digits


@pytest.mark.parametrize("gpu", ["H100", "H200"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_batch_of_images_leaves_most_of_the_cache(gpu, count):
    """Of the engine's own batch and the one for images, each at the utilization that it allows."""
    sizes = (MODEL.dimensions, MODEL.precisions["nvfp4"], ENGINE, KNOWN.gpus[gpu])
    load = MemorySettings(count, 32768, 256, 0.95, ENGINE.memory["batched_tokens"])
    smaller = memory.replace(load, batched_tokens=ENGINE.vision_flags["nvfp4"]["max-num-batched-tokens"])
    own, chosen = memory.safe_budget(*sizes, load), memory.safe_budget(*sizes, smaller)
    assert own.fits
    assert chosen.fits
    assert chosen.kv_tokens > own.kv_tokens
    assert chosen.limit_gib >= own.limit_gib


def test_starts_that_nothing_was_fitted_to_are_predicted():
    rows = [row for row in fit_memory.held_out() if row.load.sequences <= fit_memory.SAMPLER_SEQUENCES]
    assert {row.load.batched_tokens for row in rows} >= {4096, 8192}
    for row in rows:
        found = row.predict({})
        assert found.weights_gib == pytest.approx(row.weights_gib, rel=0.005), row.name
        assert 0.97 * row.kv_tokens <= found.kv_tokens <= 1.01 * row.kv_tokens, row.name


@pytest.mark.parametrize(("folder", "starts"), [("0.33.0", 9), ("0.33.0-estimated-graphs", 7)])
def test_starts_of_0_33_0_are_predicted(folder, starts):
    """Where vLLM subtracted its estimate of the CUDA graphs, the prediction is without it."""
    engine, seen = KNOWN.engines["0.33.0"], 0
    for path in fit_memory.EVIDENCE.glob(f"{folder}/*.json"):
        evidence = json.loads(path.read_text())
        for run in (evidence, *evidence["other_runs"]):
            if "kv_cache_gib" not in run["reported"]:
                continue  # a startup plan or a number of bytes replaced the profile
            row = fit_memory._row(evidence, run)
            precision = MODEL.precisions[row.precision]
            found = memory.budget(MODEL.dimensions, precision, engine, KNOWN.gpus[row.gpu], row.load)
            estimated = run["reported"]["graphs_estimated_gib"] if folder != engine.version else 0.0
            tokens = found.kv_tokens - estimated * 2**30 / found.kv_bytes_per_token
            assert found.weights_gib == pytest.approx(row.weights_gib, rel=0.001), row.name
            assert 0.99 * row.kv_tokens <= tokens <= 1.005 * row.kv_tokens, row.name
            assert found.fits
            seen += 1
    assert seen == starts


@pytest.mark.parametrize(("gpus", "limit"), [(1, 5.3), (2, 5.0)])
def test_0_33_0_leaves_room_for_what_images_and_a_long_prompt_took(gpus, limit):
    engine, seen = KNOWN.engines["0.33.0"], 0
    for path in fit_memory.EVIDENCE.glob("0.33.0/*.json"):
        run = json.loads(path.read_text())
        if run["count"] != gpus or "images" not in run:
            continue
        seen += 1
        reported = run["reported"]
        taken = max(run["images"][-1]["memory_used_mib"]) / 1024 - reported["limit_gib"]
        beside = taken - reported["graphs_actual_gib"]
        assert limit - 1.4 <= beside <= limit - 0.5, path.name
        row = fit_memory._row(run, run)
        found = memory.budget(
            MODEL.dimensions, MODEL.precisions[row.precision], engine, KNOWN.gpus[row.gpu], row.load
        )
        assert found.headroom_gib == limit
    assert seen == 2


def test_starts_with_many_sequences_are_predicted():
    rows = [row for row in fit_memory.held_out() if row.load.sequences > 256]
    assert {row.load.sequences for row in rows} == {512, 1024, 2048}
    for row in rows:
        assert 0.99 * row.kv_tokens <= row.predict({}).kv_tokens <= 1.005 * row.kv_tokens, row.name


@pytest.mark.parametrize(
    ("parallel", "batched", "reported"), [(1, 8192, 1.95), (2, 8192, 1.67), (2, 16384, 14.56)]
)
def test_images_take_what_vllm_reported(parallel, batched, reported):
    load = MemorySettings(parallel, 32768, 256, 0.95, batched)
    found = memory.budget(MODEL.dimensions, MODEL.precisions["fp8"], ENGINE, KNOWN.gpus["H200"], load)
    assert found.activation_gib == pytest.approx(reported, abs=0.02)
    assert found.images_per_step == {8192: 2, 16384: 5}[batched]


def test_a_batch_that_images_make_too_large_is_refused():
    sizes = (MODEL.dimensions, MODEL.precisions["nvfp4"], ENGINE, KNOWN.gpus["H100"])
    load = MemorySettings(1, 32768, 256, 0.95, 16384)  # ended copying the mask, on a card
    assert not memory.budget(*sizes, load).fits
    assert memory.budget(*sizes, memory.replace(load, images=0)).fits
    few = memory.replace(load, context=8192, sequences=1)  # two images are a whole context
    assert activation_memory.images_per_step(MODEL.dimensions, few) == 2
    assert memory.safe_budget(*sizes, few).fits
    assert activation_memory.images_per_step(MODEL.dimensions, memory.replace(few, images=1)) == 1
    single = activation_memory.image_bytes(MODEL.dimensions, memory.replace(few, images=1), 6.6)
    assert max(single) < min(activation_memory.image_bytes(MODEL.dimensions, few, 6.6))


def test_every_model_has_a_budget_on_a_gpu():
    for model in KNOWN.models.values():
        for precision in model.precisions.values():
            load = MemorySettings(8, 2048, 4, 0.95, 8192)
            assert memory.budget(model.dimensions, precision, ENGINE, KNOWN.gpus["H200"], load).cache_gib > 0


@given(st.sampled_from([1, 2, 4]), st.integers(1, 65_536))
def test_a_step_of_smaller_images_takes_no_less(parallel, batched):
    load = MemorySettings(parallel, 32768, 256, 0.95, batched)
    profiled, largest = activation_memory.image_bytes(MODEL.dimensions, load, ENGINE.memory["image_stream"])
    assert largest >= profiled
    text = memory.replace(load, images=0)
    sizes = (MODEL.dimensions, MODEL.precisions["fp8"], ENGINE, KNOWN.gpus["H200"])
    assert memory.budget(*sizes, text).burst_gib == 0 <= memory.budget(*sizes, load).burst_gib


def test_starts_that_ended_for_lack_of_memory_are_refused():
    """The recipe's flags on three machines: utilization 0.8 is too little for each, the batch asks for more."""
    ended = [
        (evidence, run)
        for evidence, run in fit_memory.ended()
        if "max-num-batched-tokens" in run["changed_flags"]
    ]
    assert len(ended) == 3
    for evidence, run in ended:
        changed = run["changed_flags"]
        load = MemorySettings(
            evidence["count"],
            int(changed["max-model-len"]),
            int(changed["max-num-seqs"]),
            float(changed["gpu-memory-utilization"]),
            int(changed["max-num-batched-tokens"]),
        )
        sizes = (
            MODEL.dimensions,
            MODEL.precisions[evidence["precision"]],
            ENGINE,
            KNOWN.gpus[evidence["gpu"]],
        )
        assert not memory.budget(*sizes, load).fits, run["run"]


def test_the_constants_are_those_of_the_fit():
    for name, value in fit_memory.fit(fit_memory.ROWS).items():
        if name == "graph_mib_per_layer":
            for precision, parts in value.items():
                assert ENGINE.memory[name][precision] == pytest.approx(parts, abs=1e-4)
        else:
            assert ENGINE.memory[name] == pytest.approx(value, abs=1e-4), name


def test_kv_bytes_per_token_are_whole_on_every_gpu():
    assert [weight_memory.kv_bytes_per_token(MODEL.dimensions, parallel) for parallel in (1, 2, 4)] == [
        23_040
    ] * 3


def test_weights_are_the_published_bytes():
    tokens = weight_memory.weight_bytes(MODEL.dimensions, MODEL.precisions["fp8"], 1, vision=True)
    assert tokens == pytest.approx(MODEL.precisions["fp8"].bytes, rel=0.005)


def test_a_dense_model_is_data():
    dense = KNOWN.models["qwen2.5-32b-instruct"]
    published = dense.precisions["bf16"]
    assert weight_memory.weight_bytes(dense.dimensions, published, 1, vision=False) == pytest.approx(
        published.bytes, rel=0.001
    )
    assert weight_memory.kv_bytes_per_token(dense.dimensions, 1) == 262_144
    assert weight_memory.kv_bytes_per_token(dense.dimensions, 8) == 32_768
    assert weight_memory.kv_bytes_per_token(dense.dimensions, 16) == 32_768


@pytest.mark.parametrize(("sequences", "graphs"), [(8, 4 + 5), (64, 11 + 19), (256, 35 + 51), (512, 51 + 51)])
def test_captured_graphs(sequences, graphs):
    assert cuda_graphs.captured_graphs(sequences, memory_settings.default_capture_size(sequences)) == graphs


MACHINES = st.tuples(
    st.sampled_from(["H100", "H200"]),
    st.sampled_from(["fp8", "nvfp4"]),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(1024, 262144),
    st.integers(1, 1024),
)


@given(MACHINES)
def test_more_memory_never_fits_less(machine):
    _, *rest = machine
    small, large = budget("H100", *rest), budget("H200", *rest)
    assert large.kv_tokens >= small.kv_tokens
    assert large.fits or not small.fits


@given(MACHINES)
def test_more_gpus_never_need_more_each(machine):
    gpu, precision, parallel, *rest = machine
    few, many = budget(gpu, precision, parallel, *rest), budget(gpu, precision, parallel * 2, *rest)
    assert many.weights_gib <= few.weights_gib
    assert many.activation_gib <= few.activation_gib
    assert many.graphs_gib <= few.graphs_gib
    assert many.kv_tokens >= few.kv_tokens


@given(MACHINES)
def test_a_refusal_names_a_positive_shortfall(machine):
    found = budget(*machine)
    if not found.fits:
        assert found.short_gib > 0 or found.beyond_gib > found.above_limit_gib


@given(MACHINES, st.integers(1, 100_000))
def test_a_longer_context_never_fits_better(machine, more):
    gpu, precision, parallel, context, sequences = machine
    here = budget(gpu, precision, parallel, context, sequences)
    there = budget(gpu, precision, parallel, context + more, sequences)
    assert there.short_gib >= here.short_gib
    assert there.full_requests <= here.full_requests
