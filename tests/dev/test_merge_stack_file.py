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

    def update(self, tracked: str) -> list[str]:
        self.tracked.write_text(tracked)
        kept: list[str] = UPDATE(self.tracked, self.base, self.copy)
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


def test_a_key_removed_by_the_user_stays_removed(files: Files) -> None:
    files.copy.write_text("config:\n  s: {x: 1, y: 1}\n")
    files.update("config:\n  a: 1\n  s: {x: 5, y: 1}\n")
    assert files.config() == {"s": {"x": 5, "y": 1}}


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
