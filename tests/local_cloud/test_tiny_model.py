"""The tiny model is the same everywhere and matches its record."""

from __future__ import annotations

from pathlib import Path

import pulumi_vllm.plan
import pytest
import yaml
from pulumi_vllm_local.hub import tree
from pulumi_vllm_local.tiny_model import model_files


def test_the_record_matches_a_new_copy():
    assert model_files.record() == model_files.pinned()


def test_ensure_generates_the_model_once_and_refuses_changes(tmp_path):
    folder = model_files.ensure(tmp_path / "tiny")
    before = (folder / "consolidated.safetensors").stat().st_mtime_ns
    assert model_files.ensure(folder) == folder
    assert (folder / "consolidated.safetensors").stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
    with (folder / "consolidated.safetensors").open("r+b") as file:
        file.seek(5_000_000)
        file.write(b"\x01")
    with pytest.raises(RuntimeError, match="is pinned; remove the folder"):
        model_files.ensure(folder)


def test_the_catalogue_pins_the_tiny_model():
    data = Path(pulumi_vllm.plan.__path__[0]) / "data/models/mistral-small-4-tiny.yaml"
    precision = yaml.safe_load(data.read_text(encoding="utf-8"))["precisions"]["bf16"]
    pinned = model_files.pinned()
    assert (precision["repository"], precision["revision"]) == (pinned["repository"], pinned["revision"])


def test_git_ids(tmp_path):
    (tmp_path / "a").write_bytes(b"hello\n")
    (tmp_path / "w.safetensors").write_bytes(b"x")
    plain, weights = tree.read_tree(tmp_path)
    assert plain.oid == "ce013625030ba8dba906f756967f9e9ca394464a"  # the output of git hash-object
    assert plain.etag == plain.oid
    assert weights.lfs
    assert weights.etag == weights.sha256
    assert weights.oid != weights.git_sha1
    assert len(tree.commit_of((plain, weights))) == 40
