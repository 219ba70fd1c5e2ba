import subprocess
import sys

import hypothesis.strategies as st
import pytest
from hypothesis import given
from pulumi_vllm.provider.plugin.protocol import UNKNOWN, Secret, from_struct, has_unknown, reveal, to_struct

LEAVES = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=20)
VALUES = st.recursive(
    LEAVES | st.just(UNKNOWN),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(min_size=1, max_size=8), inner, max_size=3)
        | inner.map(Secret)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text(min_size=1, max_size=8), VALUES, max_size=4))
def test_values_survive_the_wire(values):
    assert from_struct(to_struct(values)) == values


def test_a_secret_never_prints_its_value():
    assert "hunter2" not in repr({"a": [Secret("hunter2")]})


def test_secrets_open_at_any_depth():
    assert reveal({"a": [Secret({"b": Secret(1)})]}) == {"a": [{"b": 1}]}


def test_an_unknown_inside_a_secret_is_found():
    assert has_unknown({"a": [Secret({"b": UNKNOWN})]})
    assert not has_unknown({"a": [Secret({"b": 1})]})


def test_a_value_without_a_place_in_state_is_refused():
    with pytest.raises(TypeError, match="has no place"):
        to_struct({"a": object()})


def test_the_provider_starts_without_the_sdk():
    """`import pulumi` takes 0.7 s of every preview: the plugin must not pay it."""
    code = "import sys, pulumi_vllm.provider.plugin.adapter; sys.exit('pulumi' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_provider_starts_without_the_models_of_a_stack_file():
    code = "import sys, pulumi_vllm.provider.plugin.adapter; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
