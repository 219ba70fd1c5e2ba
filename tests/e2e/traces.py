"""The places where a secret could leak: command lines and environments of processes, and files."""

import contextlib
import os
import threading
from pathlib import Path

LARGE = 16 << 20


class Processes:
    """Sample command lines and environments of all processes, including those in guests, until the block ends.

    Of this computer's root only the command lines: its environment is where a person puts the keys, and nobody else can
    read it. In a machine nobody has put any there.
    """

    def __init__(self):
        self.observed: dict[bytes, str] = {}
        self._over = threading.Event()

    def __enter__(self):
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _run(self):
        mine = Path("/proc/self/ns/pid").readlink()
        while not self._over.wait(0.05):
            for place in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    line = (place / "cmdline").read_bytes()
                    self.observed.setdefault(line, f"the command line {line[:60]!r}")
                    if place.stat().st_uid or (place / "ns/pid").readlink() != mine:
                        self.observed.setdefault(
                            (place / "environ").read_bytes(), f"the environment of {line[:60]!r}"
                        )


def in_files(folder: Path, *leave_out: str) -> dict[str, bytes]:
    """Read all files below a folder, except the given names and disk images."""
    found = {}
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in leave_out]
        for name in set(names) - set(leave_out):
            place = Path(here) / name
            if place.is_file() and place.stat().st_size < LARGE:
                found[str(place.relative_to(folder))] = place.read_bytes()
    return found


def leaks(secrets: dict[str, str], texts: dict[str, bytes]) -> list[str]:
    """Return which secret occurs where; for PEM text, any line with enough of the key counts."""
    return [
        f"{name} in {where}"
        for name, secret in secrets.items()
        for mark in signatures(secret)
        for where, text in texts.items()
        if mark.encode() in text
    ]


def signatures(secret: str) -> list[str]:
    """Return the strings that reveal a secret: the secret itself, and for PEM text the line that depends on the key."""
    if not secret.startswith("-----BEGIN"):
        return [secret]
    body = secret.split("PRIVATE KEY-----")[1].strip("-").split()
    body = [line for line in body if len(line) > 40]
    # An OpenSSH key starts with a common header and its public half; the private half starts on the third line.
    return body[2:4] if "OPENSSH" in secret else body[:1]
