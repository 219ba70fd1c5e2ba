"""tests/rendered/<stack>/ holds what a stack deploys, so that a review shows every change of it.

tests/rendered/combinations/<name>.diff holds what a named combination changes in its stack.
`UPDATE_GOLDENS=1 pytest tests/render/test_goldens.py` writes all of them again.
"""

import os

import combinations
import goldens
import pytest

import stacks

UPDATE = bool(os.environ.get("UPDATE_GOLDENS"))


def test_rendered_as_reviewed(stack):
    wanted = goldens.texts(stacks.planned(stack), stacks.rendered(stack), stacks.block(stack), {})
    folder = goldens.FOLDER / stack
    if UPDATE:
        for path in [path for path in folder.rglob("*") if path.is_file() and path.name != stacks.EXPOSURE]:
            path.unlink()
        for name, text in wanted.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    found = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    found.pop(stacks.EXPOSURE, None)
    assert sorted(found) == sorted(wanted)
    for name, text in wanted.items():
        assert found[name] == text, f"{stack}/{name} changed; if that is meant, run with UPDATE_GOLDENS=1"


@pytest.mark.parametrize("name", combinations.COMBINATIONS)
def test_a_combination_changes_what_was_reviewed(name):
    golden, text = goldens.FOLDER / "combinations" / f"{name}.diff", combinations.difference(name)
    if UPDATE:
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)
    assert golden.read_text() == text, f"{golden.name} changed; if that is meant, run with UPDATE_GOLDENS=1"


def test_nothing_else_is_rendered():
    there = {path.name for path in goldens.FOLDER.iterdir()}
    assert there == {*stacks.NAMES, "combinations"}
    listed = {path.stem for path in (goldens.FOLDER / "combinations").iterdir()}
    assert listed == set(combinations.COMBINATIONS)
