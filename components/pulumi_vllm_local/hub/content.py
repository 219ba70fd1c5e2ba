"""The content of the hub: the tiny model, placeholders for large models, and published models without weights."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pulumi_vllm_local.hub import published_models
from pulumi_vllm_local.hub.tree import TreeFile, commit_of, read_tree
from pulumi_vllm_local.tiny_model import chain_models, model_files

if TYPE_CHECKING:
    from collections.abc import Iterator

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository of the hub, with its folder and its only revision."""

    name: str
    folder: Path
    revision: str
    files: tuple[TreeFile, ...]
    license: str = "apache-2.0"

    @classmethod
    def read(cls, name: str, folder: Path, revision: str | None = None) -> Repository:
        """Read a folder; the default revision is a hash of its files."""
        files = read_tree(folder)
        return cls(name, folder, revision or commit_of(files), files)

    def file(self, path: str) -> TreeFile | None:
        """Return the file with a path, or None."""
        return next((file for file in self.files if file.path == path), None)


@dataclass(frozen=True, slots=True)
class _Placeholder:
    """A large model: its files have their real names and a few MB of noise."""

    name: str
    revision: str
    shards: tuple[int, ...]  # bytes of each consolidated file
    hf_shards: int  # the number of files with the same weights in Hugging Face's format


_PLACEHOLDERS = (
    _Placeholder(
        "mistralai/Mistral-Small-4-119B-2603",
        "a11f36bebf709121056b1dbcc943d1c6afbe494d",
        (5 * _MIB, 5 * _MIB, 2 * _MIB),
        3,
    ),
    _Placeholder(
        "mistralai/Mistral-Small-4-119B-2603-NVFP4",
        "45331841b631f4e281df8e959ea3cc9beb84298a",
        (_MIB // 2,) * 13,
        0,
    ),
)
_README = """# Placeholder for {name}

This is not {name}. It is a placeholder of the local cloud: the file names are those of the model, the weights are
{size:.0f} MB of noise, and no engine but the local fake engine can serve it.
"""


def repositories(cache: Path) -> tuple[Repository | published_models.HeaderRepository, ...]:
    """Return all repositories, and create the missing ones."""
    tiny = model_files.pinned()["revision"]
    found = [Repository.read(model_files.REPOSITORY, model_files.ensure(cache / f"tiny-{tiny[:12]}"))]
    for placeholder in _PLACEHOLDERS:
        key = hashlib.sha256(repr((placeholder, tiny)).encode() + Path(__file__).read_bytes()).hexdigest()[
            :12
        ]
        folder = cache / f"placeholder-{key}"
        if not folder.is_dir():
            _make(placeholder, found[0].folder, folder)
        found.append(Repository.read(placeholder.name, folder, placeholder.revision))
    code = Path(chain_models.__file__).read_bytes() + Path(published_models.__file__).read_bytes()
    for chain in chain_models.MODELS:
        key = hashlib.sha256(code + chain.repository.encode()).hexdigest()[:12]
        found.append(Repository.read(chain.repository, chain_models.ensure(chain, cache / f"chain-{key}")))
    return (*found, *published_models.repositories(cache))


def _make(placeholder: _Placeholder, tiny: Path, folder: Path) -> None:
    """Write a placeholder atomically."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    shutil.copyfile(tiny / "tekken.json", fresh / "tekken.json")
    shutil.copyfile(tiny / "params.json", fresh / "params.json")
    for name, size in _weights(placeholder):
        _noise(fresh / name, size, placeholder.name)
    if placeholder.hf_shards:
        (fresh / "config.json").write_text(json.dumps({"architectures": ["Placeholder"]}), encoding="utf-8")
        index = {"metadata": {"placeholder": placeholder.name}, "weight_map": {}}
        (fresh / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    text = _README.format(name=placeholder.name, size=sum(placeholder.shards) / 1e6)
    (fresh / "README.md").write_text(text, encoding="utf-8")
    fresh.chmod(0o755)
    if folder.exists():  # another process finished first, with the same bytes
        shutil.rmtree(fresh)
    else:
        fresh.rename(folder)


def _weights(placeholder: _Placeholder) -> Iterator[tuple[str, int]]:
    count = len(placeholder.shards)
    for number, size in enumerate(placeholder.shards, 1):
        yield f"consolidated-{number:05}-of-{count:05}.safetensors", size
    for number in range(1, placeholder.hf_shards + 1):
        yield f"model-{number:05}-of-{placeholder.hf_shards:05}.safetensors", _MIB


def _noise(path: Path, size: int, placeholder: str) -> None:
    """Write a valid safetensors file with one tensor, whose metadata says that it is a placeholder."""
    header = {
        "__metadata__": {"format": "pt", "placeholder": f"not the weights of {placeholder}"},
        "placeholder": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]},
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    body = hashlib.shake_256(f"{placeholder} {path.name}".encode()).digest(size)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
