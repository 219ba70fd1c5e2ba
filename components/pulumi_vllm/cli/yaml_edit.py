"""Edits of YAML files that keep comments, order and layout. Loaded only by commands that write such files."""

import io
from collections.abc import Callable
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

__all__ = ["YAMLError", "edit", "only_adds_lines"]

_LAYOUTS: Final = ((2, 4, 2), (2, 2, 0), (4, 6, 4), (4, 4, 2), (4, 4, 0))
"""Indentation of maps, of lists, and of the dash in a list. The first one that reproduces the file is used."""

_NO_WRAPPING: Final = 1 << 20


def edit(text: str, change: Callable[[Any], None]) -> str:
    """Return the text after `change`, which modifies the document in place."""
    line_end = "\r\n" if "\r\n" in text else "\n"
    plain = text.replace("\r\n", "\n")
    plain += "" if plain.endswith("\n") else "\n"
    editors = [_editor(*layout) for layout in _LAYOUTS]
    editor = next((one for one in editors if _dump(one, one.load(plain)) == plain), editors[0])
    document = editor.load(plain)
    change(document)
    return _dump(editor, document).replace("\n", line_end)


def only_adds_lines(before: str, after: str) -> bool:
    """Whether every line of a file is still there, in the same order. A missing end of the last line may be added."""
    lines = iter(after.splitlines(keepends=True))
    *first, last = before.splitlines(keepends=True) or [""]
    return all(line in lines for line in first) and any(line.startswith(last) for line in lines)


def _editor(mapping: int, sequence: int, offset: int) -> YAML:
    editor = YAML()
    editor.preserve_quotes = True
    editor.width = _NO_WRAPPING
    editor.indent(mapping=mapping, sequence=sequence, offset=offset)
    return editor


def _dump(editor: YAML, document: Any) -> str:
    stream = io.StringIO()
    editor.dump(document, stream)
    return stream.getvalue()
