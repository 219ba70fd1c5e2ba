"""How the host programs report: failures with an exit code, and lines for the journal."""

from __future__ import annotations

import re
import sys
from pathlib import Path

CONFIG = 2  # exit code: the configuration is wrong; another try can't help


class Failure(Exception):  # noqa: N818
    """The program cannot go on. Holds the message for a person and the exit code."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def log(line: str) -> None:
    """Write one line to the journal, after the program's name."""
    sys.stdout.write(f"{Path(sys.argv[0]).name}: {line}\n")
    sys.stdout.flush()


def printable(text: str) -> str:
    """Text from another program or server, made safe for one journal line."""
    return re.sub(r"[^!-~]+", " ", text).strip()[:200]
