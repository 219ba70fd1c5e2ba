"""The memory of other architectures: what is divided, what is not, and what a request takes beside its tokens."""

from dataclasses import replace

import pytest
from pulumi_vllm.plan import Deployment, catalogue, explain, memory, plan, tensor_groups, weight_memory
from pulumi_vllm.plan.catalogue import Dimensions, Precision
from pulumi_vllm.plan.memory_settings import MemorySettings

KNOWN = catalogue.load()
COMMIT = "0" * 40
DENSE = Dimensions(
    layers=4,
    hidden=1024,
    heads=8,
    vocabulary=1000,
    tied_embeddings=False,
    rope_positions=4096,
    attention={"kind": "gqa", "kv_heads": 2, "head_dim": 128},
    mlp={"kind": "dense", "intermediate": 4096},
)
BF16 = Precision("bf16", "a/b", COMMIT, 10**9, 2.0, 2.0)
SETTINGS = MemorySettings(tensor_parallel=1, context=32768, sequences=8, utilization=0.9, batched_tokens=2048)


def weights(model, precision=BF16, parallel=1, **more):
    return weight_memory.weight_bytes(model, precision, parallel, vision=False, **more)


def test_keys_and_values_are_kept_once_per_head_when_there_are_more_gpus_than_heads():
    kv = 4 * 2 * 2 * 128 * 1024 * 2  # layers, keys and values, heads, head size, hidden size, 16 bit
    replicated = 4 * 2 * 1024 * 2 + 4096 * 128 * 2
    split = weights(DENSE) - replicated - kv
    assert weights(DENSE, parallel=2) == split / 2 + kv / 2 + replicated
    assert weights(DENSE, parallel=8) == split / 8 + kv / 2 + replicated


def test_tied_embeddings_are_kept_once():
    tied = replace(DENSE, tied_embeddings=True)
    assert weights(DENSE) - weights(tied) == 1000 * 1024 * 2


def test_dense_layers_and_shared_experts_have_widths_of_their_own():
    mlp = {"kind": "moe", "experts": 8, "active": 2, "shared": 1, "intermediate": 512}
    mixed = replace(DENSE, mlp=mlp)
    wide = replace(DENSE, mlp={**mlp, "shared_intermediate": 2048})
    assert weights(wide) - weights(mixed) == 4 * 3 * 1024 * (2048 - 512) * 2
    first = replace(DENSE, mlp={**mlp, "dense_layers": 1, "dense_intermediate": 4096})
    layer = 3 * 1024 * 512 * 9 * 2 + 1024 * 8 * 2  # experts and router
    assert weights(first) == weights(mixed) - layer + 3 * 1024 * 4096 * 2


def test_queries_without_a_latent():
    attention = {"kind": "mla", "q_lora_rank": 0, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
                 "v_head_dim": 128}  # fmt: skip
    latent = replace(DENSE, attention=attention)
    ranked = replace(DENSE, attention={**attention, "q_lora_rank": 256})
    queries = 8 * (128 + 64)
    assert weights(latent) - weights(ranked) == 4 * (1024 * queries - 256 * queries - 1024 * 256 - 256) * 2


@pytest.mark.parametrize(
    ("capability", "padded"),
    [(None, (2880, 2880)), ("8.0", (3072, 2944)), ("9.0", (3072, 2880)), ("10.0", (3072, 3072))],
)
def test_kernels_pad_the_experts_of_mxfp4(capability, padded):
    mlp = {"kind": "moe", "experts": 32, "active": 4, "shared": 0, "intermediate": 2880}
    model = replace(DENSE, hidden=2880, mlp=mlp)
    four_bits = replace(BF16, name="mxfp4", expert_bytes=0.53125)
    more = weights(model, four_bits, capability=capability) - weights(model, four_bits)
    experts = 4 * 32 * 3 * 0.53125
    assert more == pytest.approx(experts * (padded[0] * padded[1] - 2880**2), abs=1)


@pytest.mark.parametrize(
    ("layers", "window", "full", "windowed"),
    [(62, 52, 10, 60), (24, 12, 12, 12), (25, 12, 13, 13), (9, 4, 5, 5), (10, 4, 8, 4)],
)
def test_kinds_of_layers_share_the_cache_in_groups_of_one_size(layers, window, full, windowed):
    """Gemma 3 27B, gpt-oss-20b, the same with a layer more, and numbers that differ by less than half, and by half."""
    attention = {**DENSE.attention, "window": {"tokens": 1024, "layers": window}}
    found = weight_memory._cached_layers(replace(DENSE, layers=layers, attention=attention))
    assert found == {"full": full, "window": windowed, "linear": 0}


def test_windows_and_states_take_a_fixed_part_of_the_cache():
    window = replace(DENSE, attention={**DENSE.attention, "window": {"tokens": 1024, "layers": 3}})
    assert weight_memory.kv_bytes_per_token(window, 1) == 2 * 2 * 128 * 2
    assert weight_memory.kv_bytes_per_request(window, SETTINGS) == 3 * (1023 + 4096) * 2 * 2 * 128 * 2
    short = replace(SETTINGS, context=2000)
    assert weight_memory.kv_bytes_per_request(window, short) == 3 * 2000 * 2 * 2 * 128 * 2
    linear = {"layers": 3, "key_heads": 4, "value_heads": 8, "key_dim": 64, "value_dim": 64, "convolution": 4,
              "state_bytes": 4}  # fmt: skip
    hybrid = replace(DENSE, attention={**DENSE.attention, "linear": linear})
    state = 8 * 64 * 64 * 4 + (2 * 256 + 512) * 3 * 2
    assert weight_memory.kv_bytes_per_request(hybrid, SETTINGS) == 2 * 3 * state
    assert weight_memory.kv_bytes_per_request(hybrid, replace(SETTINGS, tensor_parallel=2)) == 3 * state
    assert weight_memory.kv_bytes_per_request(DENSE, SETTINGS) == 0


def budget(model, **more):
    engine, gpu = KNOWN.engines["0.26.0"], KNOWN.gpus["H100"]
    return memory.budget(model, BF16, engine, gpu, replace(SETTINGS, **more))


def test_a_cache_with_a_fixed_part_holds_whole_requests():
    window = replace(DENSE, attention={**DENSE.attention, "window": {"tokens": 1024, "layers": 3}})
    found, plain = budget(window), budget(DENSE)
    each = 32768 * found.kv_bytes_per_token + found.kv_bytes_per_request
    assert found.full_requests == pytest.approx(found.cache_gib * 2**30 / each, rel=1e-4)
    assert found.full_requests > plain.full_requests
    left = found.cache_gib * 2**30 - found.kv_bytes_per_request
    assert found.longest_request == int(left / found.kv_bytes_per_token)
    assert budget(DENSE).longest_request == plain.kv_tokens


def test_a_tower_without_a_formula_makes_the_figures_unverified():
    other = replace(DENSE, vision={"kind": "other", "parameters": 10**9})
    pixtral = KNOWN.models["mistral-small-4"].dimensions
    assert "not counted" in " ".join(budget(other, images=4).unverified)
    assert budget(other, images=0).unverified == ()
    assert budget(pixtral, images=4).unverified == ()
    assert budget(other, images=4).weights_gib - budget(other, images=0).weights_gib == pytest.approx(
        2e9 / 2**30
    )


NAMES = {
    "embedding": ("model.embed_tokens.weight", "tok_embeddings.weight", "model.language_model.embed_tokens.weight"),
    "head": ("lm_head.weight", "output.weight"),
    "attention": (
        "model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.o_proj.qweight",
        "model.layers.3.self_attn.kv_b_proj.weight", "layers.0.attention.wo.weight", "model.layers.0.self_attn.sinks",
    ),
    "kv": ("model.layers.0.self_attn.k_proj.weight", "model.layers.0.self_attn.v_proj.scales",
           "layers.0.attention.wk.weight"),
    "latent": ("model.layers.0.self_attn.q_a_proj.weight", "layers.0.attention.wkv_a_with_mqa.weight"),
    "linear": ("model.layers.0.linear_attn.in_proj_qkvz.weight", "model.layers.0.linear_attn.A_log"),
    "mlp": ("model.layers.0.mlp.gate_proj.weight", "layers.0.feed_forward.w1.weight"),
    "experts": (
        "model.layers.0.mlp.experts.7.up_proj.weight", "model.layers.0.mlp.experts.gate_up_proj_blocks",
        "model.layers.4.mlp.shared_experts.down_proj.weight", "model.layers.4.mlp.shared_expert.up_proj.weight",
        "layers.0.experts.3.w1.weight", "layers.0.shared_experts.w2.weight",
        "model.layers.0.block_sparse_moe.experts.0.w1.weight",
    ),
    "router": (
        "model.layers.0.mlp.gate.weight", "model.layers.0.mlp.router.weight", "layers.0.gate.weight",
        "model.layers.0.mlp.shared_expert_gate.weight", "model.layers.3.mlp.gate.e_score_correction_bias",
    ),
    "norms": ("model.norm.weight", "model.layers.0.input_layernorm.weight", "model.layers.0.self_attn.q_norm.weight"),
    "vision": ("visual.blocks.0.attn.qkv.weight", "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight",
               "vision_encoder.transformer.layers.0.attention.wq.weight",
               "multi_modal_projector.mm_input_projection_weight",
               "model.visual.merger.mlp.0.weight"),
    "prediction": ("mtp.layers.0.mlp.experts.1.up_proj.weight", "model.layers.61.self_attn.q_a_proj.weight"),
    "other": ("model.something.else",),
}  # fmt: skip


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group, names in NAMES.items() for name in names]
)
def test_a_tensors_group_follows_from_its_name(group, name):
    assert tensor_groups.group_of(name, 61) == group


def test_exact_bytes_are_divided_by_group():
    tensors = dict.fromkeys(tensor_groups.GROUPS, 1000)
    exact = replace(BF16, tensors=tensors)
    rope = 4096 * 128 * 2
    assert weights(DENSE, exact) - rope == 11_000  # neither the tower nor drafting layers
    assert weight_memory.weight_bytes(DENSE, exact, 1, vision=True) - rope == 12_000
    assert weights(DENSE, exact, 4) - rope == 6 * 250 + 500 + 4 * 1000


def test_a_card_on_which_nothing_was_measured_makes_every_figure_unverified():
    machine = {"gpu": "B200", "count": 1, "max_usd_per_hour": 9}
    block = {
        "model": "mistral-small-4",
        "precision": "nvfp4",
        "context": "32Ki",
        "machine": machine,
        "storage": "300GB",
    }
    decided = plan(Deployment.parse(block))
    label = explain.labels(decided)["fits"]
    assert label.startswith("unverified: ")
    assert "never on B200" in label
    rules = {one.rule for one in decided.findings}
    assert "unmodelled-memory" in rules
    assert "nvfp4-on-hopper" not in rules
    assert decided.usd_per_hour is None


@pytest.mark.parametrize(("images", "fits"), [(True, None), (False, True)])
def test_nobody_knows_whether_it_fits_where_a_vision_tower_is_not_counted(images, fits):
    machine = {"gpu": "H200", "count": 1, "max_usd_per_hour": 9}
    block = {"model": "gemma-3-27b", "context": "8Ki", "storage": "300GB", "machine": machine}
    decided = plan(
        Deployment.parse(block | {"engine": {"flags": {} if images else {"language-model-only": True}}})
    )
    summary = explain.summary(decided)
    assert summary["fits"] is fits
    assert ("unknown and not counted" in summary["labels"]["fits"]) == images


@pytest.mark.parametrize(
    ("gpu", "headroom"), [("L4", 0.08 * 22.03), ("RTX 4090", 0.08 * 23.52), ("A100 80GB", 5.3), ("H100", 5.3)]
)
def test_a_small_card_gets_the_headroom_that_vllm_leaves(gpu, headroom):
    machine = {"gpu": gpu, "count": 1, "max_usd_per_hour": 9}
    block = {"model": "llama-3.1-8b", "context": "8Ki", "storage": "300GB", "machine": machine}
    decided = plan(Deployment.parse(block | {"engine": {"version": "0.33.0"}}))
    assert decided.memory.headroom_gib == pytest.approx(headroom)
    assert decided.memory.fits
