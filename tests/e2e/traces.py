"""Where a secret could show: what every process tells about itself, and files. Used while a stack lives."""

import contextlib
import os
import threading
from pathlib import Path

LARGE = 16 << 20


class Processes:
    """Samples command lines and environments of all processes, guests included, until it is left.

    Of this computer's root only the command lines: its environment is where a person puts the keys, and nobody else can
    read it. In a machine nobody has put any there.
    """

    def __init__(self):
        self.seen: dict[bytes, str] = {}
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
                    self.seen.setdefault(line, f"the command line {line[:60]!r}")
                    if place.stat().st_uid or (place / "ns/pid").readlink() != mine:
                        self.seen.setdefault(
                            (place / "environ").read_bytes(), f"the environment of {line[:60]!r}"
                        )


def in_files(folder: Path, *leave_out: str) -> dict[str, bytes]:
    """Every file below a folder, but for names that are left out and for images of disks."""
    found = {}
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in leave_out]
        for name in set(names) - set(leave_out):
            place = Path(here) / name
            if place.is_file() and place.stat().st_size < LARGE:
                found[str(place.relative_to(folder))] = place.read_bytes()
    return found


def shown(secrets: dict[str, str], texts: dict[str, bytes]) -> list[str]:
    """Which secret stands where; of a PEM text, any line with enough of the key in it."""
    return [
        f"{name} in {where}"
        for name, secret in secrets.items()
        for mark in marks(secret)
        for where, text in texts.items()
        if mark.encode() in text
    ]


def marks(secret: str) -> list[str]:
    """What gives a secret away: itself, and of a PEM text the line that only its key makes."""
    if not secret.startswith("-----BEGIN"):
        return [secret]
    body = secret.split("PRIVATE KEY-----")[1].strip("-").split()
    body = [line for line in body if len(line) > 40]
    # An OpenSSH key begins with what every such key has, and with its public half; the private one comes third.
    return body[2:4] if "OPENSSH" in secret else body[:1]
