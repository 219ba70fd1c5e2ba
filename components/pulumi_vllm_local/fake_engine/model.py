"""Checks that a model folder has all files and that its weight files are complete."""

from __future__ import annotations

import json
import struct
from pathlib import Path

_LARGEST_HEADER = 100_000_000


class LoadError(Exception):
    """The model cannot be loaded."""


def check(folder: str) -> None:
    """Raise unless the folder holds a model in Mistral's format."""
    path = Path(folder)
    if not path.is_dir():
        raise LoadError(f"{folder} is not a folder, and the fake engine does not download models")
    for name in ("params.json", "tekken.json"):
        try:
            json.loads((path / name).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise LoadError(
                f"Failed to load mistral '{name}' from {folder}: there is no such file"
            ) from error
        except ValueError as error:
            raise LoadError(f"{path / name} is not JSON: {error}") from error
    weights = sorted(path.glob("consolidated*.safetensors"))
    if not weights:
        raise LoadError(f"Cannot find any model weights with `{folder}` (consolidated*.safetensors)")
    for file in weights:
        _check_weights(file)


def _check_weights(path: Path) -> None:
    """Raise if the header does not describe the whole file, as the real loader does for a truncated file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == len(b"12345678") else _LARGEST_HEADER + 1
        if length > min(_LARGEST_HEADER, size):
            raise LoadError(f"{path}: SafetensorError: Error while deserializing header: header too large")
        try:
            header = json.loads(file.read(length))
        except ValueError as error:
            raise LoadError(f"{path}: SafetensorError: Error while deserializing header: {error}") from error
    ends = [item["data_offsets"][1] for name, item in header.items() if name != "__metadata__"]
    if 8 + length + max(ends, default=0) != size:
        raise LoadError(
            f"{path}: SafetensorError: Error while deserializing header: incomplete metadata, file not fully covered"
        )
