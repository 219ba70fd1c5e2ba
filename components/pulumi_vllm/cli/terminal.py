"""Exit codes, messages on stderr and colours. Results go to stdout."""

import os
import sys

TROUBLE = 1
USAGE = 64  # sysexits.h: EX_USAGE


def say(text: str) -> None:
    """Print each line of a message on stderr, with the program's name."""
    for line in text.splitlines():
        print(f"pulumi-vllm: {line}", file=sys.stderr)


def coloured(text: str, code: str) -> str:
    """Colour a text of stdout with an SGR code, but only on a terminal and where NO_COLOR is not set."""
    if not text or os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return text
    return f"\x1b[{code}m{text}\x1b[0m"
