"""Every engine of the catalogue has the schema of its arguments."""

from pulumi_vllm.plan import catalogue, flags_schema


def test_every_engine_of_the_catalogue_has_its_arguments():
    assert set(catalogue.load().engines) <= set(flags_schema.versions())
