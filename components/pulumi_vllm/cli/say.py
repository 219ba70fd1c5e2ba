"""Exit codes, and how a subcommand speaks to people: a line each on stderr; stdout is for answers."""

import os
import sys

TROUBLE = 1
USAGE = 64  # sysexits.h: EX_USAGE


def say(text: str) -> None:
    """Tell each line of a text on stderr, as ours."""
    for line in text.splitlines():
        print(f"pulumi-vllm: {line}", file=sys.stderr)


def coloured(text: str, code: str) -> str:
    """An answer's text in a colour (an SGR code) on a terminal; plain elsewhere, and where NO_COLOR says so."""
    if not text or os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return text
    return f"\x1b[{code}m{text}\x1b[0m"
