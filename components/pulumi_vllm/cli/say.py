"""Exit codes, and how a subcommand speaks to people: a line each on stderr; stdout is for answers."""

import sys

TROUBLE = 1
USAGE = 64  # sysexits.h: EX_USAGE


def say(text: str) -> None:
    """Tell each line of a text on stderr, as ours."""
    for line in text.splitlines():
        print(f"pulumi-vllm: {line}", file=sys.stderr)
