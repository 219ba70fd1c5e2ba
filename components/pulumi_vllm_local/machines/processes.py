"""Run programs, and recognise a recorded process although its number may have been reused."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any


class CommandError(Exception):
    """A program failed; the message has its arguments, its exit code and its last line."""


def run(*command: str | Path, stdin: str = "", check: bool = True, timeout: float = 60.0) -> str:
    """Run a program and return its output; raise CommandError if it fails."""
    arguments = [str(word) for word in command]
    done = subprocess.run(
        arguments,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        errors="replace",
    )
    if check and done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise CommandError(f"{' '.join(arguments[:6])}: exit code {done.returncode}: {words}")
    return done.stdout


def start_time(pid: int) -> int | None:
    """Return the start time of a process in clock ticks since boot; None if it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else int(fields[19])


def alive(record: dict[str, Any] | None, key: str = "pid") -> bool:
    """Return whether the recorded process still runs; a reused process id does not count."""
    if not record or not record.get(key):
        return False
    return start_time(int(record[key])) == record.get(f"{key}_start")
