"""The merge that lets `config set` and an edited stack file live together."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

UPDATE = runpy.run_path(str(Path(__file__).parents[2] / "dev.d" / "merge_stack_file.py"))["update"]


class Files:
    def __init__(self, folder: Path) -> None:
        self.tracked, self.base, self.copy = (
            folder / name for name in ("tracked.yaml", "base.yaml", "copy.yaml")
        )
        self.back: list[str] = []

    def update(self, tracked: str) -> list[str]:
        self.tracked.write_text(tracked)
        kept: list[str]
        kept, self.back = UPDATE(self.tracked, self.base, self.copy)
        return kept

    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = yaml.safe_load(self.copy.read_text())["config"]
        return config


@pytest.fixture
def files(tmp_path: Path) -> Files:
    made = Files(tmp_path)
    made.update("# words\nconfig:\n  a: 1\n  s:\n    x: 1\n    y: 1\n")
    return made


def test_the_first_copy_is_the_file_itself(files: Files) -> None:
    assert files.copy.read_text() == files.tracked.read_text()


def test_a_change_of_the_tracked_file_reaches_the_copy(files: Files) -> None:
    files.copy.write_text("encryptionsalt: v1\nconfig:\n  a: 1\n  s: {x: 1, y: 1}\n")
    assert files.update("config:\n  b: 2\n  s:\n    x: 2\n    y: 1\n") == []
    assert files.config() == {"b": 2, "s": {"x": 2, "y": 1}}
    assert yaml.safe_load(files.copy.read_text())["encryptionsalt"] == "v1"


def test_a_value_set_by_the_user_stays(files: Files) -> None:
    files.copy.write_text("config:\n  a: 1\n  s: {x: 1, y: 7}\n  mine: {secure: v1}\n")
    assert files.update("config:\n  a: 3\n  s: {x: 2, y: 1}\n") == []
    assert files.config() == {"a": 3, "s": {"x": 2, "y": 7}, "mine": {"secure": "v1"}}


@pytest.mark.parametrize(
    ("copy", "back"),
    [
        ("config:\n  s: {x: 1, y: 1, deep: {z: 1}, list: [p, q]}\n", ["config.a"]),
        ("config:\n  a: 1\n  s: {y: 1, deep: {z: 1}, list: [p, q]}\n", ["config.s.x"]),
        ("config:\n  a: 1\n  s: {x: 1, y: 1, deep: {}, list: [p, q]}\n", ["config.s.deep.z"]),
        ("config:\n  a: 1\n  s: {x: 1, y: 1, list: [p, q]}\n", ["config.s.deep"]),
        ("config:\n  a: 1\n", ["config.s"]),
        ("encryptionsalt: v1\n", ["config"]),
        ("config:\n  a: 1\n  s: {x: 1, y: 1, deep: {z: 1}, list: [q]}\n", ["config.s.list"]),
        ("config:\n  a: 1\n  s: {x: 1, y: 1, deep: {z: 1}, list: []}\n", ["config.s.list"]),
    ],
)
def test_what_the_user_removed_is_the_files_again(files: Files, copy: str, back: list[str]) -> None:
    """Whether the user ever set it or not, and whether the file changes at the same time or not."""
    tracked = "config:\n  a: 1\n  s: {x: 1, y: 1, deep: {z: 1}, list: [p, q]}\n"
    for changed in (tracked, tracked.replace("1", "5").replace("p,", "r,")):
        files.update(tracked)
        files.copy.write_text(copy)
        files.update(changed)
        assert files.config() == yaml.safe_load(changed)["config"]
        assert files.back == back
        files.update(changed)
        assert files.back == []


def test_a_list_keeps_the_elements_that_the_user_set(files: Files) -> None:
    tracked = "config:\n  list: [p, q]\n"
    files.update(tracked)
    files.copy.write_text("config:\n  list: [mine]\n")
    assert files.update(tracked) == []
    assert files.config() == {"list": ["mine"]}


def test_a_conflict_keeps_the_users_value_and_is_reported(files: Files) -> None:
    files.copy.write_text("config:\n  a: 1\n  s: {x: 8, y: 1}\n")
    assert files.update("config:\n  a: 1\n  s: {x: 9, y: 1}\n") == ["config.s.x"]
    assert files.config()["s"]["x"] == 8


def test_merging_twice_changes_nothing(files: Files) -> None:
    files.copy.write_text("config:\n  a: 4\n")
    files.update(files.tracked.read_text())
    before = files.copy.read_text()
    files.update(files.tracked.read_text())
    assert files.copy.read_text() == before


def test_the_copy_gets_the_comments_of_the_tracked_file(files: Files) -> None:
    files.copy.write_text("config:\n  a: 7\n  s:\n    x: 1\n    y: 1\n")
    files.update("# words\nconfig:\n  a: 1  # one\n  s:\n    x: 2  # two\n    y: 1\n")
    assert files.copy.read_text() == "# words\nconfig:\n  a: 7  # one\n  s:\n    x: 2  # two\n    y: 1\n"
