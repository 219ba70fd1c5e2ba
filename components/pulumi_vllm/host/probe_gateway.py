"""Part of the probe: what HAProxy's admin socket says."""

import csv
import os
import re
import socket
import time
from typing import Any

from pulumi_vllm.host.probe_processes import start_ticks


def gateway(path: str) -> "dict[str, Any] | None":
    """Return what the gateway's admin socket says about its server, and when its worker started."""
    try:
        servers = asked(path, "show stat vllm 4 -1")
        process = asked(path, "show info")
    except OSError:
        return None
    rows = list(csv.DictReader(servers.removeprefix("# ").splitlines()))
    pid = re.search(r"^Pid: (\d+)", process, re.MULTILINE)
    # HAProxy's own uptime leaves out the time for which a host was frozen.
    started = start_ticks(pid[1]) if pid else 0
    if not rows or not started:
        return None
    return {
        "status": rows[0].get("status"),
        "seconds": rows[0].get("lastchg"),
        "started": started / os.sysconf("SC_CLK_TCK"),
    }


def asked(path: str, command: str) -> str:
    """Send one command to HAProxy's admin socket and return the answer. All sessions may be in use for a moment."""
    for pause_s in (0.1, 0.5, 1.0, None):
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(3)
                connection.connect(path)
                connection.sendall(command.encode() + b"\n")
                return b"".join(iter(lambda: connection.recv(65536), b"")).decode(errors="replace")
        except (BlockingIOError, TimeoutError):
            if pause_s is None:
                raise
            time.sleep(pause_s)
    return ""
