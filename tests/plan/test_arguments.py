"""Every engine of the catalogue has the schema of its arguments."""

from pulumi_vllm.plan import catalogue, vllm_parser


def test_every_engine_of_the_catalogue_has_its_arguments():
    assert set(catalogue.load().engines) <= set(vllm_parser.versions())
