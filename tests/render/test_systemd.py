"""Quoting of arguments in unit files: systemd reads back exactly what went in."""

from hypothesis import given
from hypothesis import strategies as st
from pulumi_vllm.render import systemd


def unquoted(text):
    """The argument that systemd reads from one quoted word."""
    if text.startswith('"'):
        text = text[1:-1].replace("\\n", "\n").replace('\\"', '"').replace("\\\\", "\\")
    return text.replace("%%", "%").replace("$$", "$")


@given(
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1).filter(
        lambda text: "\\" not in text
    )
)
def test_systemd_reads_back_the_argument(text):
    assert unquoted(systemd.quote(text)) == text


def test_one_flag_per_line():
    lines = systemd.command_lines(("--model", "/m", "--enforce-eager", "--x", '{"a":1}'))
    assert lines == ("--model /m", "--enforce-eager", '--x "{\\"a\\":1}"')
