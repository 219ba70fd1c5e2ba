"""The merge that lets `config set` and an edited stack file live together."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLLOW = runpy.run_path(str(Path(__file__).parents[2] / "dev.d" / "stack_file.py"))["follow"]


class Files:
    def __init__(self, folder: Path) -> None:
        self.tracked, self.base, self.copy = (
            folder / name for name in ("tracked.yaml", "base.yaml", "copy.yaml")
        )

    def follow(self, tracked: str) -> list[str]:
        self.tracked.write_text(tracked)
        kept: list[str] = FOLLOW(self.tracked, self.base, self.copy)
        return kept

    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = yaml.safe_load(self.copy.read_text())["config"]
        return config


@pytest.fixture
def files(tmp_path: Path) -> Files:
    made = Files(tmp_path)
    made.follow("# words\nconfig:\n  a: 1\n  s:\n    x: 1\n    y: 1\n")
    return made


def test_the_first_copy_is_the_file_itself(files: Files) -> None:
    assert files.copy.read_text() == files.tracked.read_text()


def test_what_changes_in_the_tracked_file_arrives(files: Files) -> None:
    files.copy.write_text("encryptionsalt: v1\nconfig:\n  a: 1\n  s: {x: 1, y: 1}\n")
    assert files.follow("config:\n  b: 2\n  s:\n    x: 2\n    y: 1\n") == []
    assert files.config() == {"b": 2, "s": {"x": 2, "y": 1}}
    assert yaml.safe_load(files.copy.read_text())["encryptionsalt"] == "v1"


def test_what_was_set_by_hand_stays(files: Files) -> None:
    files.copy.write_text("config:\n  a: 1\n  s: {x: 1, y: 7}\n  mine: {secure: v1}\n")
    assert files.follow("config:\n  a: 3\n  s: {x: 2, y: 1}\n") == []
    assert files.config() == {"a": 3, "s": {"x": 2, "y": 7}, "mine": {"secure": "v1"}}


def test_what_was_removed_by_hand_stays_away(files: Files) -> None:
    files.copy.write_text("config:\n  s: {x: 1, y: 1}\n")
    files.follow("config:\n  a: 1\n  s: {x: 5, y: 1}\n")
    assert files.config() == {"s": {"x": 5, "y": 1}}


def test_both_changed_keeps_the_hands_value_and_says_so(files: Files) -> None:
    files.copy.write_text("config:\n  a: 1\n  s: {x: 8, y: 1}\n")
    assert files.follow("config:\n  a: 1\n  s: {x: 9, y: 1}\n") == ["config.s.x"]
    assert files.config()["s"]["x"] == 8


def test_following_twice_changes_nothing(files: Files) -> None:
    files.copy.write_text("config:\n  a: 4\n")
    files.follow(files.tracked.read_text())
    before = files.copy.read_text()
    files.follow(files.tracked.read_text())
    assert files.copy.read_text() == before
