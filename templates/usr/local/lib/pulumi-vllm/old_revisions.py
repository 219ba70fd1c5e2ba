"""Weights on the volume that are no longer declared: which may go, and when."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from partial_files import PARTS
from reporting import log

if TYPE_CHECKING:
    from collections.abc import Callable

MANIFEST, COMMIT = ".manifest.json", re.compile(r"[0-9a-f]{40}")
WEIGHTS_CONFIG = "/etc/pulumi-vllm/weights.json"


def others(directory: Path) -> list[Path]:
    """The directories of other revisions in WEIGHTS/OWNER/NAME, of any repository, the longest unused first."""
    top = directory.parents[2]
    found = [
        path
        for path in (top.glob("*/*/*") if top.name == "weights" else ())
        if path != directory and COMMIT.fullmatch(path.name) and path.is_dir() and not path.is_symlink()
    ]
    return sorted(found, key=lambda path: path.stat().st_mtime)


def last_ready(record: Path) -> Path | None:
    """The directory of the weights that vLLM was last ready with. A failed update comes back to them."""
    try:
        kept = json.loads(record.read_text())["files"][WEIGHTS_CONFIG]["text"]
        return Path(json.loads(kept)["directory"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remove_unfinished(directory: Path) -> None:
    """Remove the unfinished files of other revisions of this repository."""
    for other in directory.parent.glob(f"*/{PARTS}"):
        if COMMIT.fullmatch(other.parent.name) and other.parent != directory:
            shutil.rmtree(other, ignore_errors=True)


def make_room(directory: Path, record: Path, *, needed: int, free: Callable[[], int]) -> None:
    """Remove old revisions until `needed` bytes are free, or none is left that may go.

    Without need, and while vLLM may come back to it, a revision stays.
    """
    stays = last_ready(record)
    for other in others(directory):
        if needed <= free():
            return
        if other != stays and (other / MANIFEST).exists():
            before = free()
            (other / MANIFEST).unlink()  # first, so that what is left of it never looks complete
            shutil.rmtree(other)
            repository, gained = "/".join(other.parts[-3:-1]), (free() - before) / 1e9
            log(f"removed {repository} at {other.name}, which vLLM no longer uses: {gained:.2f} GB")
