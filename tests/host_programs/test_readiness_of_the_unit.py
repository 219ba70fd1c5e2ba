"""The readiness check and vllm.service: which process answers, whether it gets on, and how it ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Program

UNIT = "vllm.service"
# An engine that takes some seconds, and works or sleeps meanwhile; then it is healthy and answers chats.
ENGINE = """
import http.server, json, sys, time
port, work, seconds = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
until = time.monotonic() + seconds
while time.monotonic() < until:
    if work == "reads":
        open("/dev/zero", "rb").read(4 << 20)
    if work == "takes memory":
        kept = globals().setdefault("kept", [])
        kept.append(b"x" * (4 << 20))
    time.sleep(0.2)

class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args): pass
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self): self.answer(b"")
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        choice = {"message": {"content": "hello"}, "token_ids": [1]}
        self.answer(json.dumps({"choices": [choice], "usage": {"completion_tokens": 1}}).encode())

http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


class Engine:
    """A process, and what `systemctl show` and `journalctl` print of its unit."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port, self.processes = folder, port, []
        (folder / "systemctl").write_text(f"#!/bin/sh\ncat {folder}/shown\n")
        (folder / "journalctl").write_text(f"#!/bin/sh\n[ ! -e {folder}/line ] || cat {folder}/line\n")
        for name in ("systemctl", "journalctl"):
            (folder / name).chmod(0o755)

    def start(self, work: str = "nothing", seconds: float = 0.0) -> int:
        """Start the process and return its id."""
        command = [sys.executable, "-c", ENGINE, str(self.port), work, str(seconds)]
        self.processes.append(subprocess.Popen(command))
        return self.processes[-1].pid

    def show(self, **properties: object) -> None:
        """Set the properties of the unit. They are replaced at once, as systemd does it."""
        shown = {"ActiveState": "active", "SubState": "running", "Job": "0", "InvocationID": "first"}
        shown |= {"MainPID": "0", "ControlGroup": "/none", "ExecMainCode": "0", "ExecMainStatus": "0"}
        text = "".join(f"{name}={value}\n" for name, value in (shown | properties).items())
        (self.folder / "next").write_text(text)
        (self.folder / "next").replace(self.folder / "shown")

    def log(self, line: str) -> None:
        (self.folder / "line").write_text(json.dumps({"MESSAGE": line}) + "\n")


@pytest.fixture
def engine(tmp_path: Path, unused_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    made = Engine(tmp_path, unused_port)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    made.show()
    yield made
    for process in made.processes:
        process.kill()
        process.wait()


@pytest.fixture
def start(program: Callable[[str], Program], engine: Engine, tmp_path: Path) -> Callable[..., Any]:
    """Start the check. The gateway is the engine itself, without TLS."""
    (tmp_path / "token").write_text("key")

    def go(**more: Any) -> subprocess.Popen[str]:
        url = f"http://127.0.0.1:{engine.port}"
        config = {
            "gateway": url,
            "engine_url": url,
            "ca": "/etc/ssl/certs/ca-certificates.crt",
            "model": "small",
        }
        config |= {"token_file": str(tmp_path / "token"), "result": str(tmp_path / "result"), "unit": UNIT}
        command = program("readiness").command(**{"timeout_s": 30, "stalled_after_s": 1.5} | config | more)
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return go


def result_of(process: subprocess.Popen[str], folder: Path) -> dict[str, Any]:
    out, errors = process.communicate(timeout=40)
    result: dict[str, Any] = json.loads((folder / "result").read_text())
    assert result["passed"] == (process.returncode == 0), out + errors
    return result


def test_the_process_of_the_unit_passes(engine: Engine, start: Callable[..., Any], tmp_path: Path) -> None:
    engine.show(MainPID=engine.start())
    result = result_of(start(), tmp_path)
    assert (result["passed"], result["invocation"], result["engine_ended"]) == (True, "first", False)


def test_one_of_several_is_checked_without_the_gateway(
    engine: Engine, start: Callable[..., Any], tmp_path: Path
) -> None:
    """It gets no requests from the gateway meanwhile, and no other one may serve."""
    engine.show(MainPID=engine.start())
    (tmp_path / "only").write_text(f"{UNIT}\n")
    url, nobody = f"http://127.0.0.1:{engine.port}", "http://127.0.0.1:1"
    engines = [{"engine_url": nobody, "unit": "vllm@0.service"}, {"engine_url": url, "unit": UNIT}]
    process = start(gateway=nobody, engines=engines, only=str(tmp_path / "only"))
    result = result_of(process, tmp_path)
    assert (result["passed"], result["unit"], "gateway_s" in result) == (True, UNIT, False)


@pytest.mark.parametrize("state", ["running", "restarting"])
def test_a_process_that_is_not_the_units_fails(
    engine: Engine, start: Callable[..., Any], tmp_path: Path, state: str
) -> None:
    pid = engine.start()
    engine.show(MainPID=os.getpid() if state == "running" else 0, ActiveState="activating")
    result = result_of(start(), tmp_path)
    assert f"process {pid} (" in result["why"]
    assert f"listens on port {engine.port}, which is {UNIT}'s; end it with `kill {pid}`" in result["why"]
    assert not result["engine_ended"]


@pytest.mark.parametrize("work", ["reads", "takes memory", "logs"])
def test_an_engine_that_gets_on_is_waited_for(
    engine: Engine, start: Callable[..., Any], tmp_path: Path, work: str
) -> None:
    engine.show(MainPID=engine.start(work, 4))
    process = start()
    for number in range(16 if work == "logs" else 0):
        engine.log(f"layer {number}")
        time.sleep(0.25)
    assert result_of(process, tmp_path)["engine_s"] > 3


@pytest.mark.parametrize("line", [None, '127.0.0.1:1 - "GET /health HTTP/1.1" 503'])
def test_an_engine_that_does_not_get_on_fails(
    engine: Engine, start: Callable[..., Any], tmp_path: Path, line: str | None
) -> None:
    engine.show(MainPID=engine.start("nothing", 60))
    process = start()
    while line and process.poll() is None:
        engine.log(f"{line} {time.monotonic()}")
        time.sleep(0.1)
    why = result_of(process, tmp_path)["why"]
    assert "the engine has made no progress for 2 s (no new line, nothing read or written" in why


def test_the_time_limit_holds_for_an_engine_that_gets_on(
    engine: Engine, start: Callable[..., Any], tmp_path: Path
) -> None:
    engine.show(MainPID=engine.start("reads", 60))
    why = result_of(start(timeout_s=3), tmp_path)["why"]
    assert "the engine is not healthy after 3 s" in why
    assert "or give it longer (ready_timeout_s)" in why


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        (
            {"ActiveState": "activating", "SubState": "auto-restart", "ExecMainCode": 1, "ExecMainStatus": 0},
            f"{UNIT} ended with exit code 0 while it started; see `journalctl -u {UNIT}`",
        ),
        ({"ActiveState": "failed", "ExecMainCode": 1, "ExecMainStatus": 1}, f"{UNIT} has failed"),
        ({"ActiveState": "inactive"}, f"{UNIT} does not run"),
    ],
)
def test_an_engine_that_ended_fails_at_once(
    engine: Engine, start: Callable[..., Any], tmp_path: Path, shown: dict[str, Any], message: str
) -> None:
    engine.show(**shown)
    result = result_of(start(), tmp_path)
    assert message in result["why"]
    assert (result["engine_ended"], result["invocation"]) == (True, "first")
    assert result["engine_s"] < 1


def test_a_queued_start_is_waited_for(engine: Engine, start: Callable[..., Any], tmp_path: Path) -> None:
    engine.show(ActiveState="inactive", SubState="dead", Job=7, InvocationID="")
    process = start()
    time.sleep(0.8)
    assert process.poll() is None
    engine.show(MainPID=engine.start())
    assert result_of(process, tmp_path)["passed"]


def test_one_crash_is_tolerated_and_the_second_is_reported_by_its_start(
    engine: Engine, start: Callable[..., Any], tmp_path: Path
) -> None:
    crash = {"ActiveState": "activating", "SubState": "auto-restart", "ExecMainCode": 1, "ExecMainStatus": 1}
    engine.show(**crash)
    process = start()
    time.sleep(1.2)
    assert process.poll() is None
    engine.show(**crash | {"InvocationID": "second"})
    result = result_of(process, tmp_path)
    assert f"{UNIT} ended 2 times while it started" in result["why"]
    assert (result["engine_ended"], result["invocation"]) == (True, "second")


def test_an_engine_that_is_restarted_during_the_check_fails(
    engine: Engine, start: Callable[..., Any], tmp_path: Path
) -> None:
    engine.show(MainPID=engine.start())
    # The unit is shown once before the engine is healthy, and once at the end.
    (tmp_path / "systemctl").write_text(
        f"#!/bin/sh\ncat {tmp_path}/shown\nsed -i s/first/second/ {tmp_path}/shown\n"
    )
    result = result_of(start(), tmp_path)
    assert f"{UNIT} ended during the check" in result["why"]
    assert (result["engine_ended"], result["invocation"]) == (True, "first")
