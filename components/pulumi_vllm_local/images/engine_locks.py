"""The lock files of the engines, in a folder that the caller of the local cloud names.

The folder has one sub-folder per engine version, with a `requirements-PYTHON.txt` for each Python minor version. The
version that runs on a CPU ends in `-cpu`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class EngineLocks:
    """One folder of lock files."""

    folder: Path

    def cpu(self, python: str) -> Path | None:
        """Return the lock of the CPU engine for a Python version, the last one where there are several engines."""
        found = sorted(self.folder.glob(f"*-cpu/requirements-{python}.txt"))
        return found[-1] if found else None

    def digests(self) -> str:
        """Return the SHA-256 of every lock, one a line."""
        locks = sorted(self.folder.glob("*/requirements-*.txt"))
        return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}\n" for path in locks)
