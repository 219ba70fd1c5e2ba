"""Merge a changed stack file into the copy that Pulumi uses: merge_stack_file.py TRACKED BASE COPY.

Pulumi rewrites the stack file it is given, so ./dev gives it a copy. This three-way merge keeps what Pulumi and
`config set` wrote into the copy, and gives back the file's value of what `config rm` took out. BASE is the tracked
file as it was at the last merge.
"""

import io
import os
import sys
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML

_ABSENT = object()


def merge(base: Any, tracked: Any, copy: Any, at: str = "") -> tuple[Any, list[str], list[str]]:
    """Return the merged value, the paths of conflicts, in which the copy's value was kept, and those given back.

    What `config rm` took out of the copy is given back: the tracked file's value counts again.
    """
    if copy == base:
        return tracked, [], []
    if copy is _ABSENT or _has_lost_elements(base, copy):
        return tracked, [], [at] if tracked is not _ABSENT and base is not _ABSENT else []
    if not (isinstance(tracked, dict) and isinstance(copy, dict)):
        return copy, [] if tracked in (base, copy) else [at], []
    old = base if isinstance(base, dict) else {}
    merged: dict[Any, Any] = {}
    kept: list[str] = []
    back: list[str] = []
    for key in (*tracked, *(key for key in copy if key not in tracked)):
        sides = (side.get(key, _ABSENT) for side in (old, tracked, copy))
        value, kept_below, back_below = merge(*sides, f"{at}.{key}".lstrip("."))
        kept += kept_below
        back += back_below
        if value is not _ABSENT:
            merged[key] = value
    return merged, kept, back


def _has_lost_elements(base: Any, copy: Any) -> bool:
    """Whether a list lost elements, and none of the others was set by the user."""
    if not (isinstance(base, list) and isinstance(copy, list)):
        return False
    return len(copy) < len(base) and all(one in base for one in copy)


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


def update(tracked: Path, base: Path, copy: Path) -> tuple[list[str], list[str]]:
    """Merge the files. Returns the paths of conflicts, in which the copy's value was kept, and those given back."""
    text = tracked.read_text(encoding="utf-8")
    before = base.read_text(encoding="utf-8") if base.exists() else ""
    kept: list[str] = []
    back: list[str] = []
    if copy.exists():
        old, new, mine = (
            yaml.safe_load(one) or {} for one in (before, text, copy.read_text(encoding="utf-8"))
        )
        merged, kept, back = merge(old, new, mine)
        if text == before:
            kept = []  # reported when the file changed
        if text != before or merged != mine:
            _write(copy, _with_values(text, merged))
    else:
        _write(copy, text)
    # BASE is written last, so that a killed run merges again.
    if text != before:
        _write(base, text)
    return kept, back


if __name__ == "__main__":
    source = Path(sys.argv[1])
    stack = source.stem.removeprefix("Pulumi.")
    conflicts, given_back = update(source, *map(Path, sys.argv[2:4]))
    for path in conflicts:
        key = path.removeprefix("config.")
        sys.stderr.write(
            f"{source.parent.name}/{source.name}: {key}: this value changed in the file, but the value that you set "
            f"is kept; to use the file's value, run `./dev pulumi config rm --stack {stack} --path '{key}'`\n"
        )
    for path in given_back:
        key = path.removeprefix("config.")
        sys.stderr.write(
            f"{source.parent.name}/{source.name}: {key}: the file's value counts; to leave it out, edit the file\n"
        )
