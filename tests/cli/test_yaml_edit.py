"""Edits of stack files are minimal diffs."""

import difflib
from pathlib import Path

import pytest
from pulumi_vllm.cli import stack_file, yaml_edit

STACKS = sorted((Path(__file__).parents[2] / "stacks").glob("Pulumi.*.yaml"))


def changed_lines(before, after):
    diff = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return [line for line in diff if line[0] in "+-" and line[:3] not in {"+++", "---"}]


@pytest.mark.parametrize("file", STACKS, ids=lambda file: file.stem)
def test_an_edit_without_changes_keeps_the_text(file):
    text = file.read_text()
    assert yaml_edit.edit(text, lambda _: None) == text


@pytest.mark.parametrize("file", STACKS, ids=lambda file: file.stem)
def test_a_changed_value_is_a_one_line_diff(file):
    text = file.read_text()
    after = stack_file.change(text, {"machine.max_usd_per_hour": 3.25})
    removed, added = changed_lines(text, after)
    assert removed.startswith("-      max_usd_per_hour: ")
    assert added.startswith("+      max_usd_per_hour: 3.25")
    assert added.partition("#")[2] == removed.partition("#")[2]


def test_a_key_is_added_and_removed_as_one_line():
    text = STACKS[1].read_text()
    added = stack_file.change(text, {"machine.region": "EU North 1"})
    assert changed_lines(text, added) == ["+      region: EU North 1"]
    assert stack_file.change(added, {"machine.region": None}) == text


def test_a_duplicate_key_is_an_error():
    with pytest.raises(stack_file.StackFileError, match="cannot be changed"):
        stack_file.change("config:\n  pulumi-vllm:server: {}\n  a: 1\n  a: 2\n", {"model": "m"})


@pytest.mark.parametrize(
    ("before", "after", "adds"),
    [
        ("a: 1\n", "a: 1\nb: 2\n", True),
        ("a: 1", "a: 1\nb: 2\n", True),
        ("", "b: 2\n", True),
        ("a: 1\nc: 3\n", "a: 1\nb: 2\nc: 3\n", True),
        ("a: 1\n", "a:  1\nb: 2\n", False),
        ("a: 1\nb: 2\n", "b: 2\na: 1\n", False),
    ],
)
def test_a_file_only_gets_lines_added(before, after, adds):
    assert yaml_edit.only_adds_lines(before, after) is adds
