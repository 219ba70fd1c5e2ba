"""What the data files say of a model must not make it another model; which evidence a plan tells."""

import json
from dataclasses import replace

import pytest
from pulumi_vllm.plan import catalogue

OVERRIDDEN = [one for one in catalogue.load().models.values() if "hf-overrides" in one.flags]


@pytest.mark.parametrize("model", OVERRIDDEN, ids=lambda model: model.name)
def test_every_expert_may_be_chosen(model):
    """Fewer groups chosen than there are would serve a worse model, with only the text to tell it."""
    experts = model.dimensions.mlp["experts"]
    said = json.loads(model.flags["hf-overrides"])
    assert said == {"text_config": {"n_group": experts, "topk_group": experts}}


def test_of_evidence_as_like_the_one_with_more_levels_is_told():
    known = catalogue.load()
    wanted = ("mistral-small-4", "fp8", "0.26.0", "H200", 1)
    one, other = known.measurement(wanted, ()), ("--max-model-len", "1024")
    few = replace(one, flags=("--max-model-len", "2048"), tokens_per_s={32: 9.0}, date="2026-12-02")
    more = replace(
        one, flags=("--max-model-len", "4096"), tokens_per_s={32: 8.0, 128: 9.0}, date="2026-12-01"
    )
    for rows in ((few, more), (more, few)):
        told = replace(known, measured=rows)
        assert told.measurement(wanted, other) is more
        assert told.measurement(wanted, few.flags) is few
