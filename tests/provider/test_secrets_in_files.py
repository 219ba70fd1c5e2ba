import hypothesis.strategies as st
from hypothesis import given
from pulumi_vllm.provider.resources import secrets_in_files as sif

KEY = "sk-planted-4711"


def test_what_is_filled_in_reads_back_as_the_template():
    wanted = "a=1\ntoken=@@secret:t@@\nca=@@value:ca@@\n"
    live = sif.fill(wanted, {"t": KEY}, {"ca": "PEM"})
    assert KEY in live
    assert sif.hide(live, wanted, {"t": KEY}, {"ca": "PEM"}) == wanted


def test_a_changed_secret_is_named_and_not_shown():
    wanted = "a=1\ntoken=@@secret:t@@\n"
    shown = sif.hide("a=1\ntoken=somebody-elses\n", wanted, {"t": KEY}, {})
    assert shown == f"a=1\n{sif.HIDDEN}\n"


def test_a_file_without_secrets_is_shown_as_it_is():
    assert sif.hide("a=2\n", "a=1\n", {"t": KEY}, {}) == "a=2\n"


def test_placeholders_without_a_value_are_named():
    assert sif.missing("@@secret:t@@ @@value:u@@", {}, {"u": ""}) == ["@@secret:t@@"]


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="@\n\r"), max_size=20)),
    st.text("abc123", min_size=8),
)
def test_no_live_text_of_a_secret_file_shows_a_foreign_line(lines, secret):
    wanted = "first\nkey=@@secret:t@@\nlast\n"
    shown = sif.hide("\n".join(lines) + "\n", wanted, {"t": secret}, {})
    assert set(shown.splitlines()) <= {"first", "last", "key=@@secret:t@@", sif.HIDDEN, ""}
