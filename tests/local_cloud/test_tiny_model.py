"""The tiny model is the same everywhere, and its record is what is made."""

from __future__ import annotations

from pathlib import Path

import pulumi_vllm.plan
import pytest
import yaml
from pulumi_vllm_local import tiny_model, tree


def test_the_record_is_what_is_made():
    assert tiny_model.record() == tiny_model.pinned()


def test_ensure_makes_it_once_and_refuses_another(tmp_path):
    folder = tiny_model.ensure(tmp_path / "tiny")
    before = (folder / "consolidated.safetensors").stat().st_mtime_ns
    assert tiny_model.ensure(folder) == folder
    assert (folder / "consolidated.safetensors").stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
    with (folder / "consolidated.safetensors").open("r+b") as file:
        file.seek(5_000_000)
        file.write(b"\x01")
    with pytest.raises(RuntimeError, match="is pinned; remove the folder"):
        tiny_model.ensure(folder)


def test_the_catalogue_pins_it():
    data = Path(pulumi_vllm.plan.__path__[0]) / "data/models/mistral-small-4-tiny.yaml"
    precision = yaml.safe_load(data.read_text(encoding="utf-8"))["precisions"]["bf16"]
    pinned = tiny_model.pinned()
    assert (precision["repository"], precision["revision"]) == (pinned["repository"], pinned["revision"])


def test_git_ids(tmp_path):
    (tmp_path / "a").write_bytes(b"hello\n")
    (tmp_path / "w.safetensors").write_bytes(b"x")
    plain, weights = tree.read_tree(tmp_path)
    assert plain.oid == "ce013625030ba8dba906f756967f9e9ca394464a"  # as git hash-object says
    assert plain.etag == plain.oid
    assert weights.lfs
    assert weights.etag == weights.sha256
    assert weights.oid != weights.git_sha1
    assert len(tree.commit_of((plain, weights))) == 40
