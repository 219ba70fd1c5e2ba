"""The supervisor process of a guest: it starts nspawn, restarts it after a reboot, and records the exit code.

It is a program of its own (`python -I shim.py FOLDER`) with the standard library only, so that guests outlive the
process that created them. It reads FOLDER/launch.json and writes FOLDER/shim.json (process ids) and FOLDER/exit.json.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

REBOOT = 133


def main(folder: Path) -> int:
    """Supervise the guest until it is off."""
    launch = _launch(folder)
    for name in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(name, signal.SIG_IGN)
    marker = Path(launch["reboot_mark"])
    boots = int(launch["boots"])
    adopted = launch.get("adopt")
    while True:
        if adopted:
            _write(folder / "shim.json", _process_ids(int(adopted), boots))
            code = _wait_for_adopted(int(adopted), marker)
            adopted = None
        else:
            boots += 1
            # A volume may have been attached or detached since the last boot.
            launch = _launch(folder)
            marker.unlink(missing_ok=True)
            code = _run(folder, launch, boots)
        _kill_rest(launch)
        # After a request to stop, the guest is off even if it asked for a reboot.
        if code != REBOOT or (folder / "stopping").exists():
            break
    _write(folder / "exit.json", {"code": code, "boots": boots, "at": time.time()})
    return 0


def _launch(folder: Path) -> dict[str, Any]:
    launch: dict[str, Any] = json.loads((folder / "launch.json").read_text(encoding="utf-8"))
    return launch


def _run(folder: Path, launch: dict[str, Any], boots: int) -> int:
    def enter_cgroups() -> None:
        for path in launch["cgroups"]:
            Path(path, "cgroup.procs").write_text("0", encoding="ascii")

    for path in launch["cgroups"]:
        Path(path).mkdir(parents=True, exist_ok=True)
    with (folder / "console.log").open("ab") as log:
        # The child enters its groups between fork and exec. That is safe, because this process has one thread.
        process = subprocess.Popen(
            launch["command"],
            env=launch["environment"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            restore_signals=True,
            preexec_fn=enter_cgroups,  # noqa: PLW1509
        )
        _write(folder / "shim.json", _process_ids(process.pid, boots))
        return process.wait()


def _wait_for_adopted(pid: int, marker: Path) -> int:
    """Wait for an nspawn that an earlier shim started. A marker file replaces its exit code, which is lost."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            select.select([handle], [], [])
        finally:
            os.close(handle)
    return REBOOT if marker.exists() else 0


def _kill_rest(launch: dict[str, Any]) -> None:
    """Kill the processes of a guest whose nspawn was killed, and remove its network link."""
    group = Path(launch["cgroups"][0])
    end = time.monotonic() + 10
    with contextlib.suppress(OSError):
        while (
            "populated 1" in (group / "cgroup.events").read_text(encoding="ascii") and time.monotonic() < end
        ):
            (group / "cgroup.kill").write_text("1", encoding="ascii")
            time.sleep(0.02)
    _remove_groups(launch)
    link = Path("/sys/class/net") / launch["link"]
    while link.exists() and time.monotonic() < end:
        subprocess.run(["ip", "link", "del", launch["link"]], check=False, capture_output=True)


def _remove_groups(launch: dict[str, Any]) -> None:
    """Remove the groups, since the next boot would be killed in groups that were (see `guest.py`)."""
    for path in launch["cgroups"]:
        inner = (one for one in Path(path).rglob("*") if one.is_dir())
        for group in (*sorted(inner, reverse=True), Path(path)):
            with contextlib.suppress(OSError):
                group.rmdir()


def _process_ids(nspawn: int, boots: int) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "pid_start": _start_time(os.getpid()),
        "nspawn": nspawn,
        "nspawn_start": _start_time(nspawn),
        "boots": boots,
    }


def _start_time(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        return int(
            Path(f"/proc/{pid}/stat")
            .read_text(encoding="ascii", errors="replace")
            .rpartition(")")[2]
            .split()[19]
        )
    return None


def _write(path: Path, value: dict[str, Any]) -> None:
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(json.dumps(value), encoding="utf-8")
    beside.replace(path)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
