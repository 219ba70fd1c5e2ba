"""The end of a machine that nobody needs. Scripts take the place of systemd and the drain."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Program

SYSTEMCTL = """#!/bin/sh
echo "systemctl $*" >> "$CALLS"
case "$1" in
  show) cat "$UNIT_STATE" ;;
  poweroff) test ! -e "$CALLS.refuse" || { echo "refused" >&2; exit 1; } ;;
esac
"""
HEAD = "# table: keys, type: string, size:10240, used:1\n"
ENTRY = "0x55aa: key={} use=0 exp=119000 conn_cur=0 http_req_rate(60000)=1\n"
HOUR = 3600.0


class Host:
    """A host: its gateway shows `keys`, its engine works on `running` requests."""

    def __init__(self, folder: Path, program: Program, engine_port: int) -> None:
        self.folder, self.program = folder, program
        self.keys: list[str] | None = ["readiness"]
        self.running = 0
        (folder / "systemctl").write_text(SYSTEMCTL)
        (folder / "drain").write_text('#!/bin/sh\necho "drain $*" >> "$CALLS"\n')
        for name in ("systemctl", "drain"):
            (folder / name).chmod(0o755)
        (folder / "unit").write_text("inactive")
        self.config: dict[str, Any] = {
            "expires_s": None,
            "idle_stop_s": 2 * HOUR,
            "drain_timeout_s": 60,
            "gateway_socket": str(folder / "admin.sock"),
            "canary_key": "readiness",
            "engine_url": f"http://127.0.0.1:{engine_port}",
            "busy_units": ["vllm-weights.service"],
            "last_up": str(folder / "last-up"),
            "state": str(folder / "state.json"),
            "drain": str(folder / "drain"),
            "notice_unit": "notice.service",
            "look_s": 0.05,
        }

    @property
    def memory(self) -> dict[str, Any]:
        return json.loads((self.folder / "state.json").read_text())

    def remember(self, **more: Any) -> None:
        (self.folder / "state.json").write_text(json.dumps(self.memory | more))

    def up(self, began: str, *, age_s: float = 0.0, seconds_ago: float = 0.0) -> None:
        place = self.folder / "last-up"
        place.write_text(json.dumps({"began": began, "age_s": age_s}))
        os.utime(place, (time.time() - seconds_ago,) * 2)

    def run(self, minutes: float = 0.0, *, code: int = 0, **config: Any) -> list[str]:
        """Run once, so many minutes after the last run. Returns what it called, without questions."""
        calls = self.folder / "calls"
        calls.unlink(missing_ok=True)
        if minutes:
            self.remember(at_s=self.memory["at_s"] - minutes * 60)
        environment = {
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "CALLS": str(calls),
            "UNIT_STATE": str(self.folder / "unit"),
        }
        command = self.program.command(**self.config | config)
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, env=environment
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        self.printed = done.stdout + done.stderr
        lines = calls.read_text().splitlines() if calls.exists() else []
        return [line for line in lines if not line.startswith("systemctl show")]


@pytest.fixture
def host(tmp_path: Path, program: Callable[[str], Program]) -> Iterator[Host]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

        def do_GET(self) -> None:
            text = (
                f'vllm:num_requests_running{{engine="0"}} {there.running}.0\nvllm:num_requests_waiting 0.0\n'
            )
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

    engine = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=engine.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    gateway = socket.socket(socket.AF_UNIX)
    gateway.bind(str(tmp_path / "admin.sock"))
    gateway.listen()

    def answer() -> None:
        while True:
            try:
                connection, _ = gateway.accept()
            except OSError:
                return
            with connection:
                assert connection.recv(1000) == b"show table keys\n"
                entries = "".join(ENTRY.format(key) for key in there.keys or ())
                connection.sendall(b"No such table\n" if there.keys is None else (HEAD + entries).encode())

    there = Host(tmp_path, program("lifetime"), engine.server_address[1])
    threading.Thread(target=answer, daemon=True).start()
    yield there
    gateway.close()
    engine.shutdown()
    engine.server_close()


END = ["systemctl start notice.service", "drain --timeout 60", "systemctl poweroff"]


def test_without_a_limit_nothing_is_asked_and_nothing_ends(host: Host) -> None:
    assert host.run(idle_stop_s=None) == []
    assert not (host.folder / "state.json").exists()


def test_an_idle_machine_is_warned_of_drained_and_powered_off(host: Host) -> None:
    assert host.run() == []
    host.remember(idle_s=1.75 * HOUR - 119)
    assert host.run(1) == []
    assert host.run(1) == ["systemctl start notice.service"]
    assert host.memory["notice"]["reason"] == "idle_stop"
    assert host.memory["notice"]["text"] == (
        "The machine powers off in 15 minutes: nobody has used it for 1.75 hours (server.idle_stop). "
        "A request keeps it."
    )
    assert host.run(1) == [], "one warning is enough"
    host.remember(idle_s=2 * HOUR - 30)
    assert host.run(1) == END
    assert host.memory["notice"]["text"].startswith(
        "The machine powers off now: nobody has used it for 2 hours"
    )
    assert host.memory["ended"] == "idle_stop"


@pytest.mark.parametrize("use", ["key", "engine", "unit"])
def test_use_begins_the_count_again(host: Host, use: str) -> None:
    host.run()
    host.remember(idle_s=2 * HOUR - 30, warned=["idle_stop"])
    if use == "key":
        host.keys = ["readiness", "default"]
    elif use == "engine":
        host.running = 1
    else:
        (host.folder / "unit").write_text("activating")
    assert host.run(1) == []
    assert (host.memory["idle_s"], host.memory["warned"]) == (0.0, [])


def test_the_canary_alone_is_no_use_and_neither_is_a_host_without_gateway(host: Host) -> None:
    host.run()
    for config in ({}, {"gateway_socket": str(host.folder / "none.sock")}):
        before = host.memory["idle_s"]
        host.run(1, **config)
        assert host.memory["idle_s"] == pytest.approx(before + 60, abs=5)


def test_a_gateway_that_does_not_say_is_neither_use_nor_idle(host: Host) -> None:
    host.run()
    host.remember(idle_s=500.0)
    host.keys = None
    assert host.run(1) == []
    assert host.memory["idle_s"] == 500.0
    assert "HAProxy does not show its keys (No such table)" in host.printed


def test_the_period_counts_from_the_last_up(host: Host) -> None:
    only = {"expires_s": 8 * HOUR, "idle_stop_s": None}
    host.up("first", seconds_ago=600)
    assert host.run(**only) == []
    assert host.memory["lived_s"] == pytest.approx(600, abs=5)
    host.remember(lived_s=8 * HOUR - 901)
    assert host.run(1, **only) == ["systemctl start notice.service"]
    assert "its period of 8 hours ends (server.expires). `pulumi up` begins" in host.memory["notice"]["text"]
    host.up("second")
    assert host.run(1, **only) == []
    assert host.memory["lived_s"] == pytest.approx(0, abs=5)
    host.remember(lived_s=8 * HOUR - 1)
    assert host.run(1, **only) == END


def test_a_period_that_began_on_another_machine_goes_on(host: Host) -> None:
    host.up("before", age_s=5 * HOUR, seconds_ago=60)
    assert host.run(expires_s=8 * HOUR) == []
    assert host.memory["lived_s"] == pytest.approx(5 * HOUR + 60, abs=5)


def test_a_damaged_record_of_the_up_keeps_the_count(host: Host) -> None:
    host.up("up", seconds_ago=60)
    host.run(expires_s=8 * HOUR)
    (host.folder / "last-up").write_text("damaged")
    assert host.run(1, expires_s=8 * HOUR) == []
    assert host.memory["lived_s"] == pytest.approx(120, abs=5)
    assert "last-up: can't be read" in host.printed


def test_a_clock_that_jumps_ends_nothing(host: Host) -> None:
    both = {"expires_s": 8 * HOUR}
    host.up("up", seconds_ago=1e9)
    assert host.run(**both) == []
    assert host.memory["lived_s"] == HOUR
    assert host.run(60 * 24 * 365, **both) == [], "a suspended host counts as three minutes"
    assert host.memory["idle_s"] == 180


def test_after_a_boot_an_idle_machine_counts_anew_and_an_expired_one_ends_again(host: Host) -> None:
    host.run()
    host.remember(idle_s=2 * HOUR, ended="idle_stop", boot="another")
    assert host.run() == []
    assert host.memory["idle_s"] == 0
    host.remember(lived_s=8 * HOUR, ended="expires", boot="another")
    assert host.run(expires_s=8 * HOUR) == END


def test_a_machine_that_refuses_to_power_off_is_an_error(host: Host) -> None:
    host.run()
    host.remember(idle_s=3 * HOUR)
    (host.folder / "calls.refuse").touch()
    assert host.run(code=1) == END
    assert "can't be powered off: refused; delete it at the cloud" in host.printed


def test_a_wrong_key_of_the_configuration_is_refused(host: Host) -> None:
    host.run(code=2, idle_stopp_s=1)
    assert "unknown keys idle_stopp_s" in host.printed
