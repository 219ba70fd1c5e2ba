"""Small JSON records on disk, processes by number, and the one way the guests' side starts programs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any


class CommandError(Exception):
    """A program failed: its name, its exit code, its last line."""


def write(path: Path, value: Any) -> None:
    """Write beside, flush, rename: a reader sees the old text or the new one, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    with beside.open("w", encoding="utf-8") as handle:
        json.dump(value, handle, indent=1, sort_keys=True)
        handle.flush()
        os.fsync(handle.fileno())
    beside.replace(path)


def read(path: Path) -> dict[str, Any] | None:
    """Read a record; None when there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None
    return value if isinstance(value, dict) else None


def run(*command: str | Path, stdin: str = "", check: bool = True, timeout: float = 60.0) -> str:
    """Run a program and return what it wrote; a failure becomes a sentence."""
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
    """Return when a process began (clock ticks since boot); None for one that is gone or only waits to be reaped."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else int(fields[19])


def alive(record: dict[str, Any] | None, key: str = "pid") -> bool:
    """Tell whether the recorded process still runs; a reused number does not pass for it."""
    if not record or not record.get(key):
        return False
    return start_time(int(record[key])) == record.get(f"{key}_start")
