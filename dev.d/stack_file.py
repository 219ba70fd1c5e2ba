"""Bring the engine's copy of a stack file up to date: stack_file.py TRACKED BASE COPY.

A three-way merge: the engine rewrites the copy and `config set` writes into it; BASE is what was
tracked last time.
"""

import os
import sys
from pathlib import Path
from typing import Any

import yaml

_ABSENT = object()


def merge(base: Any, tracked: Any, copy: Any, at: str = "") -> tuple[Any, list[str]]:
    """Return the merged value, and the paths where both sides changed and the copy's value was kept."""
    if copy == base:
        return tracked, []
    if tracked in (base, copy):
        return copy, []
    if not (isinstance(tracked, dict) and isinstance(copy, dict)):
        return copy, [at]
    old = base if isinstance(base, dict) else {}
    merged: dict[Any, Any] = {}
    kept: list[str] = []
    for key in (*tracked, *(key for key in copy if key not in tracked)):
        sides = (side.get(key, _ABSENT) for side in (old, tracked, copy))
        value, below = merge(*sides, f"{at}.{key}".lstrip("."))
        kept += below
        if value is not _ABSENT:
            merged[key] = value
    return merged, kept


def _write(path: Path, text: str) -> None:
    new = path.with_suffix(f".{os.getpid()}")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def follow(tracked: Path, base: Path, copy: Path) -> list[str]:
    """Merge the files; return what the copy keeps although the tracked file says something else by now."""
    text = tracked.read_text(encoding="utf-8")
    kept: list[str] = []
    if copy.exists():
        before = base.read_text(encoding="utf-8") if base.exists() else ""
        old, new, mine = (
            yaml.safe_load(one) or {} for one in (before, text, copy.read_text(encoding="utf-8"))
        )
        merged, kept = merge(old, new, mine)
        _write(copy, yaml.safe_dump(merged, sort_keys=False, allow_unicode=True))
    else:
        _write(copy, text)
    # Last, so that a run that is killed before merges again.
    _write(base, text)
    return kept


if __name__ == "__main__":
    source = Path(sys.argv[1])
    for path in follow(source, *map(Path, sys.argv[2:4])):
        sys.stderr.write(
            f"{source.parent.name}/{source.name}: {path.removeprefix('config.')}: changed there, but what "
            f"you set is kept; `./dev pulumi config rm` gives it up\n"
        )
