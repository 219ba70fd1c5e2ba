"""Old revisions of weights: what goes when space is needed, and what always stays."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

SIZE = 100
SPACE = 1000


class Volume:
    """A volume of 1,000 bytes with four revisions of 100 bytes, the oldest first."""

    def __init__(self, top: Path) -> None:
        self.top, self.record = top, top / "ready.json"
        self.revisions = [self.revision(name, str(index)) for index, name in enumerate("aabc")]

    def revision(self, name: str, digit: str) -> Path:
        place = self.top / "weights/acme" / name / (digit * 40)
        place.mkdir(parents=True)
        (place / "model.safetensors").write_bytes(bytes(SIZE))
        (place / ".manifest.json").write_text("{}")
        os.utime(place, (1000 + int(digit), 1000 + int(digit)))
        return place

    def free(self) -> int:
        return SPACE - sum(path.stat().st_size for path in self.top.rglob("*.safetensors"))

    def ready_with(self, directory: Path) -> None:
        text = json.dumps({"directory": str(directory)})
        self.record.write_text(json.dumps({"files": {"/etc/pulumi-vllm/weights.json": {"text": text}}}))

    @property
    def left(self) -> list[str]:
        return [path.name[0] for path in self.revisions if path.exists()]


@pytest.fixture
def module(host_module: Any) -> ModuleType:
    return host_module("old_revisions")  # type: ignore[no-any-return]


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path)


@pytest.mark.parametrize(
    ("needed", "left"),
    [(0, "0123"), (600, "0123"), (650, "123"), (700, "123"), (701, "13"), (5000, "13")],
)
def test_the_oldest_go_first_and_only_as_many_as_needed(
    module: ModuleType, volume: Volume, needed: int, left: str
) -> None:
    declared, ready = volume.revisions[3], volume.revisions[1]
    volume.ready_with(ready)
    module.make_room(declared, volume.record, needed=needed, free=volume.free)
    assert volume.left == list(left)


@pytest.mark.parametrize(
    "record", ["", "{", '{"files": {}}', '{"files": {"/etc/pulumi-vllm/weights.json": 1}}']
)
def test_without_a_record_nothing_but_the_declared_revision_stays(
    module: ModuleType, volume: Volume, record: str
) -> None:
    if record:
        volume.record.write_text(record)
    module.make_room(volume.revisions[3], volume.record, needed=900, free=volume.free)
    assert volume.left == ["3"]


def test_what_is_not_ours_stays(module: ModuleType, volume: Volume) -> None:
    for name in ("notes", "4" * 39):
        (volume.top / "weights/acme/a" / name).mkdir()
    (volume.top / "weights/acme/a" / ("5" * 40)).symlink_to(volume.revisions[3])
    unfinished = volume.top / "weights/acme/a" / ("6" * 40)
    unfinished.mkdir()
    module.make_room(volume.revisions[3], volume.record, needed=5000, free=volume.free)
    names = {path.name for path in (volume.top / "weights/acme/a").iterdir()}
    assert names == {"notes", "4" * 39, "5" * 40, "6" * 40}
    assert (volume.revisions[3] / "model.safetensors").exists()
