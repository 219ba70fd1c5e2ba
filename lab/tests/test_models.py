"""The computed models of the catalogue are what their published configurations say."""

import computed_models
import pytest
import start_logs
from pulumi_vllm.plan import catalogue


@pytest.mark.parametrize("model", computed_models.MODELS, ids=lambda model: model.wishes.name)
def test_a_computed_model_is_written_from_its_configuration(model):
    path = computed_models.TARGET / f"{model.wishes.name}.yaml"
    assert path.read_text() == computed_models.text(model), "python lab/models/computed_models.py"


ROWS = [start_logs.row(log) for log in start_logs.LOGS]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.log.model}, {row.log.source}")
def test_the_formulas_agree_with_public_start_logs(row):
    assert row.weights_off is not None or row.tokens_off is not None
    assert abs(row.weights_off or 0) < 0.02
    assert abs(row.tokens_off or 0) < 0.10


def test_the_table_of_start_logs_is_current_and_has_eight_models_for_each_figure():
    assert start_logs.table() in start_logs.DOCUMENT.read_text(), "python lab/models/start_logs.py --write"
    assert len({row.log.model for row in ROWS if row.weights_off is not None}) >= 8
    assert len({row.log.model for row in ROWS if row.tokens_off is not None}) >= 8


@pytest.mark.parametrize("name", ["gpt-oss-20b", "gpt-oss-120b", "llama-3.1-8b", "llama-3.3-70b"])
def test_copies_of_the_weights_for_other_programs_are_not_downloaded(name):
    model = catalogue.load().models[name]
    vendors = [
        one for one in model.precisions.values() if one.repository.startswith(("openai/", "meta-llama/"))
    ]
    assert vendors
    assert all("original/*" in one.exclude for one in vendors)
