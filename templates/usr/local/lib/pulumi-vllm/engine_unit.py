"""What systemd and the kernel say about the engine: whether it ended, whether it gets on, and which process answers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from reporting import Failure, printable

# A started engine that hangs still wakes up and reads a few bytes.
LEAST_BYTES = 1 << 20
LISTENING, EXITED = "0A", "1"  # in /proc/net/tcp; in ExecMainCode (CLD_EXITED)
# A start of a large model takes minutes of a billed instance. After two crashes a third start is not worth the wait.
CRASHES_TOLERATED = 1
PROPERTIES = (
    "ActiveState", "SubState", "Job", "MainPID", "InvocationID", "ControlGroup", "ExecMainCode", "ExecMainStatus",
)  # fmt: skip


@dataclass
class EngineUnit:
    """The engine's unit, as it was shown last."""

    name: str
    cgroups: Path = Path("/sys/fs/cgroup")
    shown: dict[str, str] = field(default_factory=dict)
    died: list[str] = field(default_factory=list)  # InvocationID of each start that ended
    dead: str = ""  # InvocationID of the start that ended for good
    before: tuple[str, int, int] = ("", 0, 0)

    @property
    def invocation(self) -> str:
        """The start that ended, else the one that was shown last, as its journal names it."""
        return self.dead or self.shown.get("InvocationID", "")

    def show(self) -> None:
        """Ask systemd."""
        if not shutil.which("systemctl"):
            raise Failure("systemctl is missing, so nothing is known about the engine")
        command = ["systemctl", "show", "-p", ",".join(PROPERTIES), self.name]
        run = subprocess.run(command, check=False, capture_output=True, text=True)
        if run.returncode:
            raise Failure(f"`{' '.join(command)}` failed: {printable(run.stderr)}")
        self.shown = dict(line.split("=", 1) for line in run.stdout.splitlines() if "=" in line)

    def ended(self) -> str | None:
        """Why the engine will not become ready, or None."""
        reason = self.reason()
        if reason:
            self.dead = self.invocation
        return reason

    def reason(self) -> str | None:
        """The same, without keeping which start it was."""
        active, sub = self.shown.get("ActiveState"), self.shown.get("SubState")
        if active == "failed":
            return f"{self.name} has failed"
        if active == "inactive" and self.shown.get("Job", "") in ("", "0"):
            return f"{self.name} does not run"
        if sub == "auto-restart":
            if self.invocation not in self.died:
                self.died.append(self.invocation)
            if (self.shown.get("ExecMainCode"), self.shown.get("ExecMainStatus")) == (EXITED, "0"):
                return f"{self.name} ended with exit code 0 while it started"
            if len(self.died) > CRASHES_TOLERATED:
                return f"{self.name} ended {len(self.died)} times while it started"
        return None

    def processes(self) -> list[int]:
        """The processes of the unit."""
        listed = self.cgroups / self.shown.get("ControlGroup", "").lstrip("/") / "cgroup.procs"
        try:
            found = {int(line) for line in listed.read_text().split()}
        except OSError:
            found = set()
        return sorted(found | {int(self.shown.get("MainPID") or 0)} - {0})

    def progressed(self) -> bool:
        """Whether the engine wrote a line, or read, wrote or took memory, since it was last found to have done so."""
        line, transferred, memory = self.last_line(), 0, 0
        for pid in self.processes():
            try:
                counters = dict(row.split(": ") for row in Path(f"/proc/{pid}/io").read_text().splitlines())
                transferred += sum(int(counters[name]) for name in ("rchar", "wchar", "read_bytes"))
                resident = Path(f"/proc/{pid}/statm").read_text().split()[1]
                memory += int(resident) * os.sysconf("SC_PAGE_SIZE")
            except (OSError, ValueError, KeyError, IndexError):  # it has just ended
                continue
        then = self.before
        same = abs(transferred - then[1]) < LEAST_BYTES and abs(memory - then[2]) < LEAST_BYTES
        if line == then[0] and same:
            return False
        self.before = (line, transferred, memory)
        return True

    def last_line(self) -> str:
        """Time and text of the last journal line of this start. Answers to health checks are no news."""
        command = ["journalctl", "-q", "--no-pager", "-n", "30", "-o", "json"]
        command += ["--output-fields=MESSAGE", f"_SYSTEMD_INVOCATION_ID={self.invocation}"]
        if not self.invocation or not shutil.which("journalctl"):
            return ""
        run = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
        for text in reversed(run.stdout.splitlines()):
            try:
                row = json.loads(text)
            except ValueError:
                continue
            if "/health" not in str(row.get("MESSAGE")):
                return f"{row.get('__REALTIME_TIMESTAMP')} {row.get('MESSAGE')}"
        return ""

    def check_listener(self, port: int) -> None:
        """Raise Failure unless only processes of the unit listen on the port."""
        inodes, ours = listening_sockets(port), self.processes()
        foreign = inodes - {inode for pid in ours for inode in open_sockets(pid)}
        if inodes and not foreign:
            return
        if not inodes:
            raise Failure(f"nothing listens on port {port}, though a request was answered")
        others = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        holder = next((pid for pid in others if pid not in ours and foreign & open_sockets(pid)), None)
        if holder is None:
            raise Failure(f"port {port}: the process that listens there can't be observed; see `ss -ltnp`")
        words = Path(f"/proc/{holder}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        raise Failure(
            f"process {holder} ({printable(words)[:80]}) listens on port {port}, which is {self.name}'s; "
            f"end it with `kill {holder}`"
        )


def listening_sockets(port: int) -> set[str]:
    """The inodes of the sockets that listen on a TCP port."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = [line.split() for line in Path(table).read_text().splitlines()[1:]]
        except OSError:  # a host without IPv6
            continue
        found |= {
            row[9] for row in rows if row[3] == LISTENING and int(row[1].rpartition(":")[2], 16) == port
        }
    return found


def open_sockets(pid: int) -> set[str]:
    """The inodes of a process's sockets; none if it has ended or may not be looked at."""
    found = set()
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = str(entry.readlink())
            except OSError:  # closed in the meantime
                continue
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:
        pass
    return found
