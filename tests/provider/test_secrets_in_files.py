"""Filling secrets into rendered files, and redacting them in what is read back."""

import hashlib

import hypothesis.strategies as st
from hypothesis import given
from pulumi_vllm.host.mask import mask
from pulumi_vllm.provider.resources import secrets_in_files as sif

KEY = "sk-planted-4711"


def redact(live, declared, secrets, values=None):
    """Redact a file as the host reports it: its text masked, and its digest."""
    digest = hashlib.sha256(live.encode()).hexdigest()
    return sif.redact(mask(live), digest, declared, secrets, values or {})


def test_an_unchanged_file_reads_back_as_its_template():
    declared = "a=1\ntoken=@@secret:t@@\nca=@@value:ca@@\n"
    live = sif.fill(declared, {"t": KEY}, {"ca": "PEM"})
    assert KEY in live
    assert redact(live, declared, {"t": KEY}, {"ca": "PEM"}) == declared


def test_a_changed_secret_is_redacted():
    declared = "a=1\ntoken=@@secret:t@@\n"
    shown = redact("a=1\ntoken=somebody-elses\n", declared, {"t": KEY})
    assert shown == f"a=1\n{sif.REDACTED}\n"


def test_a_replaced_secret_of_many_lines_is_one_line():
    declared = "a=1\n@@secret:pem@@\nz=1\nz=1\n"
    shown = redact("a=1\nline 1\nline 2\nline 3\nz=1\nz=1\n", declared, {"pem": f"{KEY}\n{KEY}"})
    assert shown == f"a=1\n{sif.REDACTED}\nz=1\nz=1\n"


def test_a_file_without_secrets_is_not_redacted():
    assert redact("a=2\n", "a=1\n", {"t": KEY}, {}) == "a=2\n"


def test_a_foreign_line_is_masked_and_its_value_counts_as_a_difference():
    declared = "A=1\nHF_TOKEN=ours\n"
    shown = redact("A=1\nHF_TOKEN=ours\nDB_PASSWORD=x\n", declared, {})
    assert shown == "A=1\nHF_TOKEN=ours\nDB_PASSWORD=***\n"
    assert redact("A=1\nHF_TOKEN=theirs\n", declared, {}) == f"{declared}{sif.OTHER}\n"
    assert redact(declared.rstrip(), declared, {}) == f"{declared}{sif.OTHER}\n"


def test_another_value_of_a_secret_that_is_masked_is_a_difference():
    declared = "a=1\ntoken=@@secret:t@@\n"
    assert redact("a=1\ntoken=sk-somebody-elses\n", declared, {"t": KEY}) == f"a=1\n{sif.REDACTED}\n"


def test_placeholders_without_a_value_are_listed():
    assert sif.unfilled("@@secret:t@@ @@value:u@@", {}, {"u": ""}) == ["@@secret:t@@"]


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="@\n\r"), max_size=20)),
    st.text("abc123", min_size=8),
)
def test_no_undeclared_line_of_a_file_with_secrets_is_shown(lines, secret):
    declared = "first\nkey=@@secret:t@@\nlast\n"
    shown = redact("\n".join(lines) + "\n", declared, {"t": secret})
    assert set(shown.splitlines()) <= {"first", "last", "key=@@secret:t@@", sif.REDACTED, ""}
