"""Part of the probe: what HAProxy's admin socket says, and whether its memory holds what is in its files.

HAProxy's memory can be changed through the socket, and keeps what it has read. No private key and no digest of an API
key leaves the host: certificates are compared by fingerprint, maps entry by entry. HAProxy accepts a certificate only
with its own private key.
"""

import base64
import binascii
import csv
import hashlib
import os
import re
import socket
import time
from typing import Any

from pulumi_vllm.host.mask import mask
from pulumi_vllm.host.probe_processes import start_ticks
from pulumi_vllm.host.probe_reading import text

SHOWN_ENTRIES = 5


def gateway(path: str, certificate: str, maps: list[str]) -> "dict[str, Any] | None":
    """Return what the gateway's admin socket says about its servers, its worker, its `certificate` and its `maps`."""
    try:
        servers = asked(path, "show stat vllm 4 -1")
        process = asked(path, "show info")
        shown = asked(path, f"show ssl cert {certificate}")
        entries = {name: asked(path, f"show map {name}") for name in maps}
    except OSError:
        return None
    rows = list(csv.DictReader(servers.removeprefix("# ").splitlines()))
    pid = re.search(r"^Pid: (\d+)", process, re.MULTILINE)
    # HAProxy's own uptime leaves out the time for which a host was frozen.
    started = start_ticks(pid[1]) if pid else 0
    if not rows or not started:
        return None
    return {
        "servers": [
            {
                "name": row.get("svname"),
                "status": row.get("status"),
                "seconds": row.get("lastchg"),
                "address": row.get("addr"),
            }
            for row in rows
        ],
        "started": started / os.sysconf("SC_CLK_TCK"),
        "certificate": {"memory": fingerprint_in(shown), "file": fingerprint_of(text(certificate))},
        "maps": {name: map_changes(entries[name], text(name)) for name in maps},
    }


def fingerprint_in(shown: str) -> str:
    """Return the fingerprint that HAProxy shows of a certificate, or "" where it has none of this name."""
    found = re.search(r"^SHA1 FingerPrint: ([0-9A-F]{40})$", shown, re.MULTILINE)
    return found[1] if found else ""


def fingerprint_of(pem: str) -> str:
    """Return the SHA-1 fingerprint of the first certificate, which is the one that HAProxy serves."""
    found = re.search(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", pem, re.DOTALL)
    try:
        return hashlib.sha1(base64.b64decode(found[1])).hexdigest().upper() if found else ""  # noqa: S324 (as HAProxy shows it)
    except binascii.Error:
        return ""


def map_changes(shown: str, file_text: str) -> dict[str, list[str]]:
    """Return the entries that HAProxy's memory has beside those of the file, and those that it lacks."""
    memory = {tuple(line.split(None, 2)[1:]) for line in shown.splitlines() if line.startswith("0x")}
    lines = (line.strip() for line in file_text.splitlines())
    file = {tuple(line.split(None, 1)) for line in lines if line and not line.startswith("#")}
    return {"added": map_names(memory - file), "missing": map_names(file - memory)}


def map_names(entries: "set[tuple[str, ...]]") -> list[str]:
    """Return entries as a person reads them. The digest of an API key is left out, the name of the key stays."""
    named = sorted(
        {" ".join(part for part in entry if not re.fullmatch("[0-9a-f]{64}", part)) for entry in entries}
    )
    more = len(named) - SHOWN_ENTRIES
    return [mask(name)[:80] for name in named[:SHOWN_ENTRIES]] + ([f"{more} more"] if more > 0 else [])


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
