"""On the GPU machine: how busy each process of a server is, and where it spends its time."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_SESSION, _USER, _SYSTEM = 3, 11, 12  # fields of /proc/PID/stat after the name


def _fields(place: str) -> list[str]:
    """What /proc says, without the name, which may hold spaces; [] once the process is gone."""
    try:
        return Path(place).read_text().rpartition(")")[2].split()
    except OSError:
        return []


def main_threads(session: int) -> dict[str, float]:
    """CPU seconds of the main thread of each process of a session, by process id and name."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        own = _fields(f"{place}/stat")
        if not own or int(own[_SESSION]) != session:
            continue
        main = _fields(f"{place}/task/{place.name}/stat")
        if main:
            name = (place / "comm").read_text().strip()
            found[f"{name} {place.name}"] = (int(main[_USER]) + int(main[_SYSTEM])) / _TICKS
    return found


class Busy:
    """Shares of one core that the main threads of some sessions take from now on."""

    def __init__(self, *sessions: int) -> None:
        self.sessions, self.began = sessions, time.monotonic()
        self.before = self._now()

    def _now(self) -> dict[str, float]:
        return {name: used for one in self.sessions for name, used in main_threads(one).items()}

    def shares(self) -> dict[str, float]:
        """By process, those with 2 % and more."""
        took, after = time.monotonic() - self.began, self._now()
        found = {name: round((used - self.before.get(name, 0.0)) / took, 2) for name, used in after.items()}
        return {name: share for name, share in found.items() if share >= 0.02}


def spy(process: int, output: Path, seconds: int, rate: int = 100) -> subprocess.Popen[bytes] | None:
    """Sample the stacks of a process and its children with py-spy, where it lies beside the kit. It is not waited for."""
    program = Path(__file__).with_name("py-spy")
    if not program.exists():
        return None
    command = [program, "record", "--nonblocking", "--subprocesses", "--format", "raw", "--rate", str(rate)]
    command += ["--duration", str(seconds), "--output", output, "--pid", str(process)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
