"""Files that the host programs read and write: configuration, and writes that survive a crash."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from reporting import CONFIG, Failure

if TYPE_CHECKING:
    from pathlib import Path


def read_config(path: Path, known: set[str]) -> dict[str, Any]:
    """Read a JSON configuration. Unknown keys are refused, since a misspelt key would be ignored without notice."""
    try:
        config: dict[str, Any] = json.loads(path.read_text())
        unknown = sorted(set(config) - known)
    except (OSError, ValueError, TypeError) as error:
        raise Failure(f"{path}: can't be read as JSON ({error}); run `pulumi up` again", CONFIG) from None
    if unknown:
        raise Failure(
            f"{path}: unknown keys {', '.join(unknown)}; known are {', '.join(sorted(known))}", CONFIG
        )
    return config


def replace_file(path: Path, text: str, *, sync: bool = True) -> None:
    """Replace a file so that a reader, or a reboot after a crash, finds the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    with temporary.open("w") as out:
        out.write(text)
        if sync:
            out.flush()
            os.fsync(out.fileno())
    temporary.replace(path)
    if sync:
        sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make renames in a directory survive a power failure."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
