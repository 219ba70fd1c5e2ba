"""The gateway's admin socket: commands for HAProxy, and what /healthz tells of the engine."""

from __future__ import annotations

import socket
import time

from reporting import Failure, log, printable

POLL_S, ANSWER_TIMEOUT_S = 0.5, 5.0
# HAProxy serves 10 admin sessions at a time and ends an idle one after 10 s (its defaults), so others may go first.
BUSY_TIMEOUT_S = 20.0


def admin_command(admin_socket: str, command: str) -> str:
    """Send one command to HAProxy's admin socket and return the answer. Retries while HAProxy is busy."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            return send_command(admin_socket, command)
        except (BlockingIOError, TimeoutError):
            if time.monotonic() >= deadline:
                raise
        time.sleep(POLL_S)


def send_command(admin_socket: str, command: str) -> str:
    """Send one command to HAProxy's admin socket and return the answer, in one attempt."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_TIMEOUT_S)
        connection.connect(admin_socket)
        connection.sendall(command.encode() + b"\n")
        pieces = []
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces).decode(errors="replace").strip()


def report_health(admin_socket: str | None, health_map: str, *, answered: bool) -> None:
    """Let /healthz say that the engine was asked now, and whether it gave a token or works on one.

    Without a socket, and where HAProxy refuses or does not run, the gateway learns nothing of it, which is logged.
    """
    if admin_socket is None:
        return
    now = int(time.time())
    try:
        for name in ("asked_at", "token_at") if answered else ("asked_at",):
            set_in_map(admin_socket, health_map, name, str(now))
    except (OSError, Failure) as error:
        log(f"/healthz does not learn of it: {error}")


def set_in_map(admin_socket: str, file: str, name: str, value: str) -> None:
    """Set an entry of a map in the gateway's memory. Raises Failure if HAProxy refuses."""
    refusal = admin_command(admin_socket, f"set map {file} {name} {value}")
    if refusal:
        raise Failure(f"{file}: HAProxy refused to set {name} ({printable(refusal)}); run `pulumi up` again")
