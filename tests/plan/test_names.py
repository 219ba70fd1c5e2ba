"""Names of rented resources."""

import re
from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
from hypothesis import given
from pulumi_vllm.plan.names import (
    Mark,
    is_of_resource,
    is_of_stack,
    is_ours,
    is_same,
    mark_of,
    marked_name,
    physical_name,
)

WORDS = st.text(min_size=1, max_size=60)
MOMENTS = st.integers(1_767_225_600, 2_840_140_800).map(
    lambda second: datetime.fromtimestamp(second, UTC)
)  # 2026 to 2059
MARKS = st.builds(Mark, st.none() | st.from_regex(r"[a-z][a-z0-9]{0,7}", fullmatch=True), st.none() | MOMENTS)


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


@given(MARKS, WORDS, WORDS, WORDS, st.lists(WORDS, min_size=1, max_size=3))
def test_a_marked_name_tells_owner_and_end_and_is_that_of_the_same_resource(
    mark, stack, project, resource, identity
):
    name = marked_name(mark, stack, project, resource, *identity)
    assert re.fullmatch(r"[a-z][a-z0-9-]{2,44}", name)
    assert is_ours(name)
    assert is_of_stack(name, stack, project)
    assert is_of_resource(name, resource)
    assert is_same(name, physical_name(stack, project, resource, *identity))
    found = mark_of(name)
    assert found.owner == mark.owner
    if mark.expires is None:
        assert found.expires is None
    else:
        assert timedelta(0) <= found.expires - mark.expires < timedelta(minutes=1)


@given(WORDS, WORDS, WORDS, WORDS)
def test_a_name_without_a_mark_tells_neither_owner_nor_end(stack, project, resource, identity):
    assert mark_of(physical_name(stack, project, resource, identity)) == Mark()


def test_marks_do_not_hide_another_identity_or_stack():
    mark = Mark("ana", datetime(2026, 11, 30, 20, 30, tzinfo=UTC))
    name = marked_name(mark, "prod", "models", "llm-machine", "urn", "H200")
    assert name.startswith("prod-ana-2611302030")
    assert not is_same(name, physical_name("prod", "models", "llm-machine", "urn", "H100"))
    assert not is_same("somebody-elses", "somebody-else")
    assert not is_of_stack(name, "prod", "other")
    assert not is_of_resource(name, "chat-machine")
    damaged = name.replace("2611302030", "2611302031")
    assert (is_ours(damaged), mark_of(damaged)) == (False, Mark())
