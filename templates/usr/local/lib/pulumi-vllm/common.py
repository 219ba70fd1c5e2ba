"""What the programs of this folder share: failures as sentences, journal lines, files that are never torn."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

CONFIG = 2  # exit code: the configuration is wrong; trying again can't help


class Stop(Exception):  # noqa: N818
    """A sentence for a person, and the exit code."""

    def __init__(self, sentence: str, code: int = 1) -> None:
        super().__init__(sentence)
        self.code = code


def say(line: str) -> None:
    """One line for the journal, named after the program."""
    sys.stdout.write(f"{Path(sys.argv[0]).name}: {line}\n")
    sys.stdout.flush()


def printable(text: str) -> str:
    """What somebody else said, made safe for a journal line."""
    return re.sub(r"[^!-~]+", " ", text).strip()[:200]


def read_json(path: Path, known: set[str]) -> dict[str, Any]:
    """Read a configuration; unknown keys are refused, since a misspelt one would be silently ignored."""
    try:
        raw: dict[str, Any] = json.loads(path.read_text())
        unknown = sorted(set(raw) - known)
    except (OSError, ValueError, TypeError) as fault:
        raise Stop(f"{path}: can't be read as JSON ({fault}); render it again", CONFIG) from None
    if unknown:
        raise Stop(f"{path}: unknown keys {', '.join(unknown)}; known are {', '.join(sorted(known))}", CONFIG)
    return raw


def write(path: Path, text: str, *, sync: bool = True) -> None:
    """Replace a file so that a reader, or a crash, sees the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    with beside.open("w") as out:
        out.write(text)
        if sync:
            out.flush()
            os.fsync(out.fileno())
    beside.replace(path)
    if sync:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
