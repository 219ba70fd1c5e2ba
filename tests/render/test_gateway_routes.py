"""Which routes the gateway admits for which model."""

import pytest
from pulumi_vllm.plan import Deployment, catalogue, plan
from pulumi_vllm.render import gateway_routes

import stacks


@pytest.mark.parametrize("model", catalogue.load().models.values(), ids=lambda model: model.name)
def test_the_tasks_of_every_model_are_known(model):
    routes = gateway_routes.post_routes(model.tasks)
    assert "/v1/chat/completions" in routes
    assert "/v1/embeddings" not in routes


def test_a_task_opens_its_routes_only():
    assert gateway_routes.post_routes(("embed", "score")) == (
        "/v1/embeddings",
        "/pooling",
        "/score",
        "/rerank",
    )
    with pytest.raises(KeyError):
        gateway_routes.post_routes(("chat",))


def test_a_name_may_be_written_with_and_without_escapes():
    assert gateway_routes.get_routes(["org/model:7b", "plain"]) == (
        "/v1/models",
        "/v1/models/org/model:7b",
        "/v1/models/org%2Fmodel:7b",
        "/v1/models/org/model%3A7b",
        "/v1/models/org%2Fmodel%3A7b",
        "/v1/models/plain",
    )


def test_aliases_are_served_and_have_pages():
    aliases = ["gpt-4o", "gpt-4o", "mistral-small-4-tiny"]
    decided = plan(Deployment.parse(stacks.block("local") | {"aliases": aliases}))
    names = ("mistral-small-4-tiny", "pulumi-vllm/mistral-small-4-tiny", "gpt-4o")
    assert decided.served_names == names
    at = decided.argv.index("--served-model-name")
    assert decided.argv[at + 1 : at + 4] == names
    assert decided.served_name == names[0]
