"""On the GPU machine: what the caches hold, and what a start added to them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from os import stat_result
    from pathlib import Path


def _files(folder: Path) -> Iterator[tuple[str, stat_result]]:
    """Each file: the sub-folder that it is in, and its size and times."""
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            yield file.relative_to(folder).parts[0], file.stat()


def sizes(folder: Path) -> dict[str, dict[str, float]]:
    """Files and MiB by sub-folder."""
    out: dict[str, dict[str, float]] = {}
    for top, found in _files(folder):
        row = out.setdefault(top, {"files": 0, "mib": 0.0})
        row["files"] += 1
        row["mib"] += found.st_size / 2**20
    return {top: {"files": row["files"], "mib": round(row["mib"], 1)} for top, row in sorted(out.items())}


def written_since(folder: Path, began: float) -> dict[str, int]:
    """Files by sub-folder that this start wrote: what the cache did not hold."""
    return dict(Counter(top for top, found in _files(folder) if found.st_mtime > began))
