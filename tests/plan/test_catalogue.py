"""The catalogue must not alter a model; a plan uses the evidence that is most similar to it."""

import fnmatch
import json
import re
from dataclasses import replace

import pytest
from pulumi_vllm.plan import catalogue, cuda_graphs
from pulumi_vllm.plan.engine_arguments import EngineArguments
from pulumi_vllm.plan.evidence import Match, best_match, recorded_flags, unmeasured

OVERRIDDEN = [one for one in catalogue.load().models.values() if "hf-overrides" in one.flags]


@pytest.mark.parametrize("model", OVERRIDDEN, ids=lambda model: model.name)
def test_every_expert_can_be_selected(model):
    """With fewer groups than there are, vLLM would serve a worse model, and nothing but its answers would show it."""
    experts = model.dimensions.mlp["experts"]
    overrides = json.loads(model.flags["hf-overrides"])
    assert overrides == {"text_config": {"n_group": experts, "topk_group": experts}}


def test_of_equally_similar_runs_the_one_with_more_levels_wins():
    machine = ("mistral-small-4", "fp8", "0.26.0", "H200", 1)
    measured = catalogue.load().measured
    run = best_match(measured, machine, EngineArguments.of({})).run
    few = replace(run, flags={"max-model-len": "2048"}, tokens_per_s={32: 9.0}, date="2026-12-02")
    more = replace(run, flags={"max-model-len": "4096"}, tokens_per_s={32: 8.0, 128: 9.0}, date="2026-12-01")
    for runs in ((few, more), (more, few)):
        assert best_match(runs, machine, EngineArguments.of({"max-model-len": 1024})) == Match(
            more, exact=False
        )
        assert best_match(runs, machine, EngineArguments.of({"max-model-len": 2048})) == Match(
            few, exact=True
        )


@pytest.mark.parametrize(("sizes", "exact"), [(cuda_graphs.few_sizes(512), True), ("8 512", False)])
def test_only_the_planners_list_of_graphs_is_like_all_of_them(sizes, exact):
    machine = ("mistral-small-4", "fp8", "0.33.0", "H200", 1)
    run = best_match(catalogue.load().measured, machine, EngineArguments.of({"max-num-seqs": 512})).run
    flags = {name: value for name, value in run.flags.items() if name != "kv-cache-memory-bytes"}
    assert "cudagraph-capture-sizes" not in flags
    wanted = EngineArguments.of(flags | {"cudagraph-capture-sizes": sizes})
    assert best_match([run], machine, wanted).exact is exact
    assert bool(unmeasured(run, wanted, ["cudagraph-capture-sizes"])) is not exact


def test_a_recorded_command_line_equals_the_flags_that_it_was_made_from():
    flags = {
        "max-model-len": 2048,
        "gpu-memory-utilization": 0.9,
        "enforce-eager": True,
        "enable-chunked-prefill": False,
    }
    words = EngineArguments.of(flags).command_line()
    recorded = {**flags, "max-model-len": "2048", "gpu-memory-utilization": "0.9"}
    assert recorded_flags(words) == recorded


@pytest.mark.parametrize("model", catalogue.load().models.values(), ids=lambda model: model.name)
def test_digests_are_those_of_selected_files(model):
    """The host refuses a hub that does not list a file with a digest, so a wrong path would end every download."""
    for precision in model.precisions.values():
        for path, digest in precision.digests.items():
            assert re.fullmatch("[0-9a-f]{64}", digest)
            assert any(fnmatch.fnmatchcase(path, pattern) for pattern in precision.include)
            assert not any(fnmatch.fnmatchcase(path, pattern) for pattern in precision.exclude)
