"""What the data files say of a model must not make it another model."""

import json

import pytest
from pulumi_vllm.plan import catalogue

OVERRIDDEN = [one for one in catalogue.load().models.values() if "hf-overrides" in one.flags]


@pytest.mark.parametrize("model", OVERRIDDEN, ids=lambda model: model.name)
def test_every_expert_may_be_chosen(model):
    """Fewer groups chosen than there are would serve a worse model, with only the text to tell it."""
    experts = model.dimensions.mlp["experts"]
    said = json.loads(model.flags["hf-overrides"])
    assert said == {"text_config": {"n_group": experts, "topk_group": experts}}
