"""Names of rented resources."""

import re

import hypothesis.strategies as st
from hypothesis import given
from pulumi_vllm.plan.names import is_of_resource, is_of_stack, is_ours, physical_name

WORDS = st.text(min_size=1, max_size=60)


@given(WORDS, WORDS, WORDS, st.lists(WORDS, min_size=1, max_size=3))
def test_every_name_is_accepted_by_the_api_and_recognised_as_ours(stack, project, resource, identity):
    name = physical_name(stack, project, resource, *identity)
    assert re.fullmatch(r"[a-z][a-z0-9-]{2,44}", name)
    assert is_ours(name)
    assert is_of_stack(name, stack, project)
    assert is_of_resource(name, resource)


def test_another_identity_has_another_name():
    names = {physical_name("dev", "p", "server", "urn", gpu) for gpu in ("H200", "H100")}
    assert len(names) == 2


def test_a_name_tells_its_stack_from_stacks_with_similar_names():
    name = physical_name("prod", "models", "eu-machine", "urn")
    assert is_of_stack(name, "prod", "models")
    for stack, project in (
        ("prod-eu", "models"),
        ("prod", "other"),
        ("pro", "models"),
        ("staging", "models"),
    ):
        assert not is_of_stack(name, stack, project)
    long = "team-a-production-eu-"
    assert not is_of_stack(physical_name(f"{long}west", "p", "machine", "urn"), f"{long}north", "p")


def test_a_name_tells_its_resource():
    name = physical_name("prod", "models", "llm-machine", "urn")
    assert is_of_resource(name, "llm-machine")
    assert not is_of_resource(name, "chat-machine")


def test_foreign_names_are_not_ours():
    for name in (None, "", "my-machine", "prod-server-0123456789", "dev-server-0a1b2c3"):
        assert not is_ours(name)
        assert not is_of_stack(name, "dev", "p")


def test_names_of_earlier_versions_are_ours_and_of_no_known_stack():
    name = (
        "unit-llm-machine-b05f2981e8"  # physical_name("unit", "llm-machine", "urn") before the owner's digits
    )
    assert is_ours(name)
    assert not is_of_stack(name, "unit", "p")
