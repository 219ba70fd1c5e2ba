import re

import hypothesis.strategies as st
from hypothesis import given
from pulumi_vllm.plan.names import is_ours, physical_name

WORDS = st.text(min_size=1, max_size=60)


@given(WORDS, WORDS, st.lists(WORDS, min_size=1, max_size=3))
def test_every_name_is_accepted_by_the_api_and_recognised_as_ours(stack, resource, identity):
    name = physical_name(stack, resource, *identity)
    assert re.fullmatch(r"[a-z][a-z0-9-]{2,44}", name)
    assert is_ours(name)


def test_another_identity_has_another_name():
    assert physical_name("dev", "server", "urn", "H200") != physical_name("dev", "server", "urn", "H100")


def test_foreign_names_are_not_ours():
    for name in (None, "", "my-machine", "prod-server-0123456789", "dev-server-0a1b2c3"):
        assert not is_ours(name)
