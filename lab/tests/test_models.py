"""The computed models of the catalogue are what their published configurations say."""

import computed_models
import pytest


@pytest.mark.parametrize("model", computed_models.MODELS, ids=lambda model: model.wishes.name)
def test_a_computed_model_is_written_from_its_configuration(model):
    path = computed_models.TARGET / f"{model.wishes.name}.yaml"
    assert path.read_text() == computed_models.text(model), "python lab/models/computed_models.py"
