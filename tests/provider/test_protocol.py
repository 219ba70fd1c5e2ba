"""Conversion of values, and what the plugin loads at its start."""

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
def test_values_survive_the_conversion(values):
    assert from_struct(to_struct(values)) == values


def test_a_secret_never_prints_its_value():
    assert "hunter2" not in repr({"a": [Secret("hunter2")]})


def test_secrets_are_unwrapped_at_any_depth():
    assert reveal({"a": [Secret({"b": Secret(1)})]}) == {"a": [{"b": 1}]}


def test_an_unknown_inside_a_secret_is_found():
    assert has_unknown({"a": [Secret({"b": UNKNOWN})]})
    assert not has_unknown({"a": [Secret({"b": 1})]})


def test_a_value_of_another_type_is_refused():
    with pytest.raises(TypeError, match="can't be stored"):
        to_struct({"a": object()})


@pytest.mark.parametrize("module", ["pulumi", "pydantic", "jinja2", "asyncssh", "requests", "cryptography"])
def test_the_provider_starts_without_slow_modules(module):
    """`import pulumi` would add 0.7 s to every preview."""
    code = f"import sys, pulumi_vllm.provider.plugin.adapter; sys.exit('{module}' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
