"""The memory arithmetic against what vLLM reported on real GPUs, and its laws."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pulumi_vllm.plan import catalogue, memory

KNOWN = catalogue.load()
MODEL = KNOWN.models["mistral-small-4"]
ENGINE = KNOWN.engines["0.26.0"]

# 2026-11-23, vLLM 0.26.0, utilization 0.95, text only: GPU, precision, TP, context, sequences, weights GiB, KV tokens
MEASURED = [
    ("H100", "nvfp4", 1, 32768, 256, 65.31, 337_184),
    ("H100", "nvfp4", 1, 262144, 64, 65.31, 366_848),
    ("H200", "fp8", 1, 32768, 256, 112.09, 825_632),
    ("H200", "fp8", 1, 262144, 256, 112.08, 825_664),
    ("H200", "nvfp4", 1, 32768, 256, 65.31, 3_021_104),
    ("H100", "fp8", 2, 32768, 256, 56.25, 786_480),
    ("H200", "fp8", 2, 32768, 256, 56.25, 3_470_416),
]


def budget(gpu, precision, parallel, context, sequences, *, vision=False):
    load = memory.Load(parallel, context, sequences, 0.95, 8192, vision)
    return memory.budget(MODEL.dimensions, MODEL.precisions[precision], ENGINE, KNOWN.gpus[gpu], load)


@pytest.mark.parametrize("row", MEASURED)
def test_meets_the_measurements(row):
    *machine, weights_gib, kv_tokens = row
    found = budget(*machine)
    assert found.weights_gib == pytest.approx(weights_gib, rel=0.005)
    assert 0.97 * kv_tokens <= found.kv_tokens <= 1.01 * kv_tokens
    assert found.fits


def test_kv_bytes_per_token_are_whole_on_every_gpu():
    assert [memory.kv_bytes_per_token(MODEL.dimensions, parallel) for parallel in (1, 2, 4)] == [23_040] * 3


def test_weights_are_the_published_bytes():
    tokens = memory.weight_bytes(MODEL.dimensions, MODEL.precisions["fp8"], 1, vision=True)
    assert tokens == pytest.approx(MODEL.precisions["fp8"].bytes, rel=0.005)


def test_a_dense_model_is_data():
    dense = catalogue.Dimensions(
        layers=80,
        hidden=8192,
        heads=64,
        vocabulary=128256,
        tied_embeddings=False,
        rope_positions=131072,
        attention={"kind": "gqa", "kv_heads": 8, "head_dim": 128},
        mlp={"kind": "dense", "intermediate": 28672},
    )
    bf16 = catalogue.Precision("bf16", "a/b", "0" * 40, 0, 2.0, 2.0, (), ())
    weights = memory.weight_bytes(dense, bf16, 1, vision=False)
    assert weights / 2 == pytest.approx(70.55e9, rel=0.005)  # published: 70.6 billion parameters
    assert memory.kv_bytes_per_token(dense, 1) == 327_680
    assert memory.kv_bytes_per_token(dense, 8) == 40_960
    assert memory.kv_bytes_per_token(dense, 16) == 40_960


@pytest.mark.parametrize(("sequences", "graphs"), [(8, 4 + 5), (64, 11 + 19), (256, 35 + 51), (512, 51 + 51)])
def test_captured_graphs(sequences, graphs):
    assert memory.captured_graphs(sequences) == graphs


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
        assert found.short_gib > 0 or found.graphs_excess_gib > found.above_limit_gib


@given(MACHINES, st.integers(1, 100_000))
def test_a_longer_context_never_fits_better(machine, more):
    gpu, precision, parallel, context, sequences = machine
    here = budget(gpu, precision, parallel, context, sequences)
    there = budget(gpu, precision, parallel, context + more, sequences)
    assert there.short_gib >= here.short_gib
    assert there.full_requests <= here.full_requests
