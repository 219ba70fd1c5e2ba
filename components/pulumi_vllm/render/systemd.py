"""How words are written into a systemd unit so that the service gets exactly them."""

from __future__ import annotations

import re

_PLAIN = re.compile(r"[A-Za-z0-9_@+=:,./-]+")


def word(text: str) -> str:
    """One argument of ExecStart: `%` and `$` doubled, quoted where it must be."""
    escaped = text.replace("%", "%%").replace("$", "$$")
    if _PLAIN.fullmatch(text):
        return escaped
    inner = escaped.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{inner}"'


def command_lines(words: tuple[str, ...]) -> tuple[str, ...]:
    """A command's flags, one per line with its value, so that a diff shows one flag."""
    lines: list[str] = []
    for one in words:
        if one.startswith("--") or not lines:
            lines.append(word(one))
        else:
            lines[-1] += f" {word(one)}"
    return tuple(lines)
