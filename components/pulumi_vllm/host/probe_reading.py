"""Part of the probe: read files, and the output of programs."""

# os starts faster than pathlib, and every preview runs a probe.
# ruff: noqa: PTH123

import json
import subprocess

LARGEST_FILE_BYTES = 4 << 20


def start(*command: str) -> "subprocess.Popen[bytes] | None":
    """Start a program. Return None where the host does not have it."""
    try:
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )
    except OSError:
        return None


def output(process: "subprocess.Popen[bytes] | None") -> str:
    """Return what a program printed, or nothing when it failed or hung."""
    if process is None:
        return ""
    try:
        shown, _ = process.communicate(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        return ""
    return shown.decode(errors="replace") if process.returncode == 0 else ""


def text(path: str) -> str:
    """Return the text of a file, or "" where there is none."""
    try:
        with open(path, "rb") as stream:
            return stream.read(LARGEST_FILE_BYTES).decode(errors="replace")
    except OSError:
        return ""


def parsed(json_text: str) -> object:
    """Parse JSON. Return None where it is not valid."""
    try:
        return json.loads(json_text)
    except ValueError:
        return None
