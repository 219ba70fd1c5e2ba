"""Exit codes, messages on stderr, JSON on stdout, and colours."""

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

TROUBLE = 1
USAGE = 64  # sysexits.h: EX_USAGE


SCHEMA_VERSION = 1
"""Version of the objects that --json prints. It changes when a key is renamed or removed."""


class UsageError(Exception):
    """An invalid command line. The command ends with USAGE, after its own usage and the message."""


def print_json(document: Mapping[str, Any]) -> None:
    """Print the one object that a command writes with --json."""
    print(json.dumps({"schema_version": SCHEMA_VERSION, **document}, indent=2))


def say(text: str) -> None:
    """Print each line of a message on stderr, with the program's name."""
    for line in text.splitlines():
        print(f"pulumi-vllm: {line}", file=sys.stderr)


def coloured(text: str, code: str) -> str:
    """Colour a text of stdout with an SGR code, but only on a terminal and where NO_COLOR is not set."""
    if not text or os.environ.get("NO_COLOR") or not sys.stdout.isatty():
        return text
    return f"\x1b[{code}m{text}\x1b[0m"
