"""Every engine of the catalogue has the schema of its arguments."""

from pulumi_vllm.plan import catalogue, vllm_parser
from pulumi_vllm.plan.engine_arguments import SEVERAL_WORDS, EngineArguments
from pulumi_vllm.plan.evidence import recorded_flags


def test_every_engine_of_the_catalogue_has_its_arguments():
    assert set(catalogue.load().engines) <= set(vllm_parser.versions())


def test_arguments_that_take_several_words_get_several_words():
    known = {
        name
        for version in vllm_parser.versions()
        for name, argument in vllm_parser.accepted(version).items()
        if argument.get("words") == "+"
    }
    assert known == SEVERAL_WORDS
    flags = {"served-model-name": "one org/two", "hf-overrides": '{"a": 1}'}
    words = EngineArguments.of(flags).command_line()
    assert words == ("--served-model-name", "one", "org/two", "--hf-overrides", '{"a": 1}')
    assert recorded_flags(words) == flags
