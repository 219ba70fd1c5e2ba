"""The generated resource classes match the tables of the provider."""

import inspect

from pulumi_vllm.component import generated as resources
from pulumi_vllm.provider.plugin import generate
from pulumi_vllm.provider.plugin.package_schema import RESOURCES, custom_schema


def test_the_generated_module_is_up_to_date():
    assert generate.TARGET.read_text() == generate.source(), (
        "run python -m pulumi_vllm.provider.plugin.generate"
    )


def test_every_resource_has_a_class_with_all_inputs():
    for token, resource in RESOURCES.items():
        kind = getattr(resources, token.rpartition(":")[2])
        parameters = inspect.signature(kind.__init__).parameters
        assert {generate.snake(name) for name in resource.inputs} <= parameters.keys()


def test_every_property_has_a_description_and_secrets_are_marked():
    for token, described in custom_schema()["resources"].items():
        for name, prop in described["properties"].items():
            assert prop["description"], f"{token}.{name}"
    private = custom_schema()["resources"]["vllm:spheron:SshKey"]["properties"]["privateKeyPem"]
    assert private["secret"] is True


def test_an_sdk_does_not_replace_the_plugins_distribution():
    language = custom_schema()["language"]
    normalized = language["python"]["packageName"].replace("_", "-")
    assert normalized != "pulumi-vllm"
    assert language["nodejs"]["packageName"].startswith("pulumi-vllm")  # not @pulumi/vllm
