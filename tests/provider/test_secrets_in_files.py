"""Filling secrets into rendered files, and redacting them in what is read back."""

import hypothesis.strategies as st
from hypothesis import given
from pulumi_vllm.provider.resources import secrets_in_files as sif

KEY = "sk-planted-4711"


def test_an_unchanged_file_reads_back_as_its_template():
    declared = "a=1\ntoken=@@secret:t@@\nca=@@value:ca@@\n"
    live = sif.fill(declared, {"t": KEY}, {"ca": "PEM"})
    assert KEY in live
    assert sif.redact(live, declared, {"t": KEY}, {"ca": "PEM"}) == declared


def test_a_changed_secret_is_redacted():
    declared = "a=1\ntoken=@@secret:t@@\n"
    shown = sif.redact("a=1\ntoken=somebody-elses\n", declared, {"t": KEY}, {})
    assert shown == f"a=1\n{sif.REDACTED}\n"


def test_a_file_without_secrets_is_not_redacted():
    assert sif.redact("a=2\n", "a=1\n", {"t": KEY}, {}) == "a=2\n"


def test_placeholders_without_a_value_are_listed():
    assert sif.unfilled("@@secret:t@@ @@value:u@@", {}, {"u": ""}) == ["@@secret:t@@"]


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="@\n\r"), max_size=20)),
    st.text("abc123", min_size=8),
)
def test_no_undeclared_line_of_a_file_with_secrets_is_shown(lines, secret):
    declared = "first\nkey=@@secret:t@@\nlast\n"
    shown = sif.redact("\n".join(lines) + "\n", declared, {"t": secret}, {})
    assert set(shown.splitlines()) <= {"first", "last", "key=@@secret:t@@", sif.REDACTED, ""}
