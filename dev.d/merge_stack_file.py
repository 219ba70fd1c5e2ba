"""Merge a changed stack file into the copy that Pulumi uses: merge_stack_file.py TRACKED BASE COPY.

Pulumi rewrites the stack file it is given, so ./dev gives it a copy. This three-way merge keeps what Pulumi and
`config set` wrote into the copy. BASE is the tracked file as it was at the last merge.
"""

import io
import os
import sys
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML

_ABSENT = object()


def merge(base: Any, tracked: Any, copy: Any, at: str = "") -> tuple[Any, list[str]]:
    """Return the merged value, and the paths of conflicts, in which the copy's value was kept."""
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


def _with_values(text: str, values: dict[str, Any]) -> str:
    """Return the tracked file's text with other values, so that its comments reach the copy."""
    editor = YAML()
    editor.preserve_quotes = True
    editor.width = 1 << 20  # no line wrapping
    editor.indent(mapping=2, sequence=4, offset=2)
    document = editor.load(text) or {}
    _set(document, values)
    stream = io.StringIO()
    editor.dump(document, stream)
    return stream.getvalue()


def _set(block: Any, values: dict[Any, Any]) -> None:
    for key in [key for key in block if key not in values]:
        del block[key]
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(block.get(key), dict):
            _set(block[key], value)
        elif key not in block or block[key] != value:
            block[key] = value


def _write(path: Path, text: str) -> None:
    new = path.with_suffix(f".{os.getpid()}")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def update(tracked: Path, base: Path, copy: Path) -> list[str]:
    """Merge the files and return the paths of conflicts, in which the copy's value was kept."""
    text = tracked.read_text(encoding="utf-8")
    kept: list[str] = []
    if copy.exists():
        before = base.read_text(encoding="utf-8") if base.exists() else ""
        old, new, mine = (
            yaml.safe_load(one) or {} for one in (before, text, copy.read_text(encoding="utf-8"))
        )
        merged, kept = merge(old, new, mine)
        _write(copy, _with_values(text, merged))
    else:
        _write(copy, text)
    # BASE is written last, so that a killed run merges again.
    _write(base, text)
    return kept


if __name__ == "__main__":
    source = Path(sys.argv[1])
    for path in update(source, *map(Path, sys.argv[2:4])):
        sys.stderr.write(
            f"{source.parent.name}/{source.name}: {path.removeprefix('config.')}: this value changed in the file, but "
            f"the value that you set is kept; to use the file's value, run `./dev pulumi config rm` for it\n"
        )
