"""Quoting of command-line arguments in systemd unit files."""

from __future__ import annotations

import re

_NEEDS_NO_QUOTES = re.compile(r"[A-Za-z0-9_@+=:,./-]+")


def quote(argument: str) -> str:
    """One argument of ExecStart, escaped so that the service receives exactly this text."""
    escaped = argument.replace("%", "%%").replace("$", "$$")
    if _NEEDS_NO_QUOTES.fullmatch(argument):
        return escaped
    inner = escaped.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{inner}"'


def command_lines(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """A command's flags, one per line with its value, so that a diff shows one flag."""
    lines: list[str] = []
    for argument in arguments:
        if argument.startswith("--") or not lines:
            lines.append(quote(argument))
        else:
            lines[-1] += f" {quote(argument)}"
    return tuple(lines)
