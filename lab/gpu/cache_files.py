"""On the GPU machine: what the caches hold, and what a start added to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def sizes(folder: Path) -> dict[str, dict[str, float]]:
    """Files and MiB by sub-folder."""
    out: dict[str, dict[str, float]] = {}
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            top = file.relative_to(folder).parts[0]
            row = out.setdefault(top, {"files": 0, "mib": 0.0})
            row["files"] += 1
            row["mib"] += file.stat().st_size / 2**20
    return {top: {"files": row["files"], "mib": round(row["mib"], 1)} for top, row in sorted(out.items())}


def written_since(folder: Path, began: float) -> dict[str, int]:
    """Files by sub-folder that this start wrote: what the cache did not hold."""
    out: dict[str, int] = {}
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink() and file.stat().st_mtime > began:
            top = file.relative_to(folder).parts[0]
            out[top] = out.get(top, 0) + 1
    return out
