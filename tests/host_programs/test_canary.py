"""The canary against a small engine that answers, hangs, or is busy. A script takes the place of systemd."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Program

SYSTEMCTL = """#!/bin/sh
echo "$*" >> "$SYSTEMCTL_LOG"
test "$1" = show || exit 0
echo "ExecMainStartTimestampMonotonic=$STARTED_US"
echo "ActiveState=$(cat "$SYSTEMCTL_LOG.state")"
echo "UnitFileState=$ENABLED"
"""


class Engine:
    """How the engine behaves. `tokens` counts up while it makes progress."""

    def __init__(self) -> None:
        self.hangs, self.status, self.progresses, self.tokens = False, 200, False, 0
        self.says = "42"
        self.ids, self.others = [5, 7], 0  # tokens that others get during an answer
        self.asked = 0
        self.over = threading.Event()


def serve(engine: Engine) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

        def answer(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def do_GET(self) -> None:
            engine.tokens += engine.progresses
            # A client that gives up moves the second one, also while the core hangs.
            text = (
                f'vllm:generation_tokens_total{{engine="0"}} {engine.tokens}.0\n'
                f'vllm:request_success_total{{finished_reason="abort"}} {engine.asked}.0\n'
            )
            self.answer(200, text)

        def do_POST(self) -> None:
            engine.asked += 1
            self.rfile.read(int(self.headers["Content-Length"]))
            if engine.hangs:
                engine.over.wait(20)
            if engine.status == 200:
                engine.tokens += len(engine.ids) + engine.others
            choice = {"message": {"content": engine.says}, "token_ids": engine.ids}
            self.answer(engine.status, json.dumps({"usage": {"completion_tokens": 1}, "choices": [choice]}))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server


class Host:
    """The canary on a host whose systemd is a script."""

    def __init__(self, folder: Path, program: Program, port: int) -> None:
        self.folder, self.program = folder, program
        self.log = folder / "systemctl.log"
        (folder / "systemctl").write_text(SYSTEMCTL)
        (folder / "systemctl").chmod(0o755)
        self.state("active")
        self.enabled = "enabled"
        self.started_us = int((time.monotonic() - 30) * 1e6)
        (folder / "token").write_text("planted-key\n")
        self.config: dict[str, Any] = {
            "engine_url": f"http://127.0.0.1:{port}",
            "gateway": f"http://127.0.0.1:{port}",
            "ca": "/etc/ssl/certs/ca-certificates.crt",
            "token_file": str(folder / "token"),
            "model": "small",
            "unit": "vllm.service",
            "result": str(folder / "result.json"),
            "start_timeout_s": 60,
            "timeout_s": 0.5,
            "dump_s": 0.1,
        }

    def state(self, value: str) -> None:
        (self.folder / "systemctl.log.state").write_text(value)

    def run(
        self,
        *,
        started_s_ago: float | None = None,
        checks: list[dict[str, Any]] | None = None,
        **config: Any,
    ) -> tuple[int, dict[str, Any]]:
        self.log.unlink(missing_ok=True)
        if checks is not None:
            asked = self.folder / "readiness.json"
            asked.write_text(json.dumps({"golden": [], "answers": checks, "model": "small"}))
            config["checks_from"] = str(asked)
        if started_s_ago is not None:
            self.started_us = int((time.monotonic() - started_s_ago) * 1e6)
        environment = {
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "SYSTEMCTL_LOG": str(self.log),
            "STARTED_US": str(self.started_us),
            "ENABLED": self.enabled,
        }
        command = self.program.command(**self.config | config)
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, env=environment
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert "planted-key" not in done.stdout + done.stderr
        result = Path(self.config["result"])
        return done.returncode, json.loads(result.read_text()) if result.exists() else {}

    @property
    def killed(self) -> list[str]:
        lines = self.log.read_text().splitlines()
        return [line.split()[1].removeprefix("--signal=") for line in lines if line.startswith("kill ")]


class Gateway:
    """The admin socket of a gateway that accepts every command."""

    def __init__(self, folder: Path) -> None:
        self.path, self.heard = folder / "admin.sock", []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                link, _ = self.listener.accept()
            except OSError:
                return
            with link:
                self.heard.append(link.recv(1000).decode().split()[:4])

    def told(self) -> list[str]:
        """Return the keys that were set, and check that each got the time of now."""
        heard, self.heard = self.heard, []
        assert all(words[:3] == ["set", "map", "/health.map"] for words in heard), heard
        return [words[3] for words in heard]


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def host(engine: Engine, tmp_path: Path, program: Callable[[str], Program]) -> Iterator[Host]:
    server = serve(engine)
    yield Host(tmp_path, program("canary"), server.server_address[1])
    engine.over.set()
    server.shutdown()
    server.server_close()


def test_an_engine_that_answers(host: Host) -> None:
    code, result = host.run()
    assert (code, result["engine"], result["gateway"], result["memory"]["restarts"]) == (
        0,
        "answers",
        "answers",
        [],
    )
    assert host.killed == []


def test_the_gateway_learns_whether_a_token_came(host: Host, engine: Engine, tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    to = {"gateway_socket": str(gateway.path), "health_map": "/health.map"}
    host.run(**to)
    assert gateway.told() == ["asked_at", "token_at"]
    engine.hangs = True
    host.run(**to)
    assert gateway.told() == ["asked_at"]
    engine.progresses = True
    host.run(**to)
    assert gateway.told() == ["asked_at", "token_at"]
    host.state("failed")
    host.run(**to)
    assert gateway.told() == []
    gateway.listener.close()


def test_a_gateway_that_does_not_run_is_no_reason_to_fail(host: Host, tmp_path: Path) -> None:
    code, result = host.run(gateway_socket=str(tmp_path / "none"), health_map="/health.map")
    assert (code, result["engine"]) == (0, "answers")


def test_an_engine_that_hangs_is_ended_with_its_stacks_written(host: Host, engine: Engine) -> None:
    host.run()
    engine.hangs = True
    code, result = host.run()
    assert (code, result["engine"], result["gateway"]) == (1, "hung", "not asked")
    assert result["observed"] == "no token within 0.5 s, 2 times in a row, and its counters stand still"
    assert host.killed == ["ABRT", "CONT", "KILL"]
    code, result = host.run()
    assert [restart["reason"] for restart in result["memory"]["restarts"]] == [result["observed"]] * 2


def test_an_engine_whose_process_is_stopped_is_ended(host: Host) -> None:
    """It accepts connections, and answers nothing at all."""
    host.run()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code, result = host.run(engine_url=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert (code, result["engine"]) == (1, "hung")


def test_the_first_token_of_a_process_may_take_longer(host: Host, engine: Engine) -> None:
    host.run()
    engine.hangs, engine.tokens = True, 0
    code, result = host.run(started_s_ago=5)  # another process
    assert (code, result["engine"], host.killed) == (0, "starting", [])
    code, result = host.run(first_token_timeout_s=1)
    assert (code, result["engine"]) == (1, "hung")


def test_an_engine_that_has_given_others_tokens_is_not_waited_for(host: Host, engine: Engine) -> None:
    engine.hangs, engine.tokens = True, 12  # of the readiness check
    code, result = host.run()
    assert (code, result["engine"]) == (1, "hung")


def test_an_engine_that_is_busy_is_left_alone(host: Host, engine: Engine) -> None:
    engine.hangs = engine.progresses = True
    code, result = host.run()
    assert (code, result["engine"], host.killed) == (0, "busy", [])


def test_an_engine_that_answers_with_errors_is_ended(host: Host, engine: Engine) -> None:
    host.run()
    engine.status = 500
    code, result = host.run()
    assert (code, result["engine"], host.killed) == (1, "hung", ["ABRT", "CONT", "KILL"])
    assert result["observed"].startswith("status 500 (")


def test_a_request_that_the_engine_refuses_is_no_reason_to_end_it(host: Host, engine: Engine) -> None:
    engine.status = 404
    code, result = host.run()
    assert (code, result["engine"], host.killed) == (0, "refuses", [])
    assert result["observed"].startswith("status 404 (")


@pytest.mark.parametrize("state", ["inactive", "failed", "activating", "deactivating"])
def test_systemd_takes_care_of_an_engine_that_is_not_active(host: Host, state: str) -> None:
    host.state(state)
    code, result = host.run()
    assert (code, result["engine"], result["observed"]) == (0, "down", f"vllm.service is {state}")
    assert host.killed == []


@pytest.mark.parametrize(("started_s_ago", "expected"), [(30, (0, "starting")), (90, (1, "hung"))])
def test_an_engine_that_does_not_listen_starts_until_its_time_limit(
    host: Host, started_s_ago: float, expected: tuple[int, str]
) -> None:
    with socket.socket() as closed:  # bound, so that nothing else listens there
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        code, result = host.run(engine_url=url, started_s_ago=started_s_ago)
    assert (code, result["engine"]) == expected


@pytest.mark.parametrize(
    ("change", "observed"),
    [
        ({"gateway": "https://127.0.0.1:9"}, "[Errno 111] Connection refused"),
        ({"gateway": "https://127.0.0.1:9", "ca": "/nowhere"}, "[Errno 2] No such file or directory"),
    ],
)
def test_a_gateway_that_does_not_answer_is_reported_and_the_engine_left_alone(
    host: Host, change: dict[str, Any], observed: str
) -> None:
    code, result = host.run(**change)
    assert (code, result["engine"], result["gateway"], host.killed) == (0, "answers", observed, [])


def test_a_configuration_that_is_wrong_ends_nothing(host: Host) -> None:
    code, result = host.run(modell=1)
    assert (code, result) == (2, {})


SUM = {"prompt": "What is 17 + 25?", "expected": "42"}


def test_an_engine_that_answers_wrongly_three_times_in_a_row_is_ended(host: Host, engine: Engine) -> None:
    engine.says = "17"
    checks = [SUM, {**SUM, "prompt": "What is 21 + 21?"}]
    assert [host.run(checks=checks)[1]["engine"] for _ in range(2)] == ["answers", "answers"]
    assert host.killed == []
    code, result = host.run(checks=checks)
    assert (code, result["engine"], host.killed) == (1, "wrong", ["ABRT", "CONT", "KILL"])
    (restart,) = result["memory"]["restarts"]
    assert restart["reason"] == (
        "it answered wrongly 3 times in a row: 'What is 17 + 25?' got '17'; 'What is 21 + 21?' got '17'; "
        "'What is 17 + 25?' got '17'"
    )


def test_a_right_answer_in_between_starts_again(host: Host, engine: Engine) -> None:
    for says in ("17", "17", "42", "17", "17"):
        engine.says = says
        code, result = host.run(checks=[SUM])
        assert (code, result["engine"]) == (0, "answers")
    assert len(result["memory"]["wrong"]) == 2


def test_an_engine_that_answers_wrongly_after_two_restarts_is_stopped(host: Host, engine: Engine) -> None:
    engine.says = "17"
    for _ in range(3):
        host.started_us += 1  # another process
        for _ in range(3):
            code, result = host.run(checks=[SUM])
    assert (code, result["engine"]) == (1, "wrong")
    assert host.killed == []
    asked = host.log.read_text().splitlines()
    assert asked[-2:] == ["stop --no-block vllm.service", "start --no-block vllm-notify@vllm.service.service"]


@pytest.mark.parametrize(
    "damage",
    [
        {"restarts": [{"time": "yesterday", "state": "wrong"}]},
        {"restarts": [{"state": "wrong"}]},
        {"restarts": ["wrong"]},
        {"restarts": 5},
        {"wrong": 7},
        {"next_check": "x"},
        {"next_check": float("inf")},
        {"listens_since_s": "x"},
        {"other": 1},
    ],
    ids=json.dumps,
)
def test_a_result_that_cannot_be_read_is_no_reason_to_fail(
    host: Host, engine: Engine, damage: dict[str, Any]
) -> None:
    memory = host.run(checks=[SUM])[1]["memory"]
    Path(host.config["result"]).write_text(json.dumps({"memory": memory | damage}))
    engine.says = "17"
    assert [host.run(checks=[SUM])[0] for _ in range(3)] == [0, 0, 1]
    assert host.killed == ["ABRT", "CONT", "KILL"]


@pytest.mark.parametrize(("others", "kept"), [(0, 1), (3, 0)])
def test_exact_tokens_count_only_where_the_engine_computes_nothing_else(
    host: Host, engine: Engine, others: int, kept: int
) -> None:
    engine.others = others
    result = host.run(checks=[{"prompt": "Hi", "max_tokens": 48, "sha256_12": "0" * 12}])[1]
    assert (result["engine"], len(result["memory"]["wrong"])) == ("answers", kept)


def test_errors_of_an_engine_that_makes_progress_count_as_wrong_answers(host: Host, engine: Engine) -> None:
    engine.status, engine.progresses = 500, True
    assert [host.run(checks=[SUM])[:1] for _ in range(3)] == [(0,), (0,), (1,)]
    assert host.killed == ["ABRT", "CONT", "KILL"]


def test_questions_that_cannot_be_read_are_no_reason_to_fail(host: Host, tmp_path: Path) -> None:
    code, result = host.run(checks_from=str(tmp_path / "none.json"))
    assert (code, result["engine"]) == (0, "answers")


@pytest.mark.parametrize(
    ("state", "enabled", "started_us", "starts"),
    [
        ("inactive", "enabled", 0, True),
        ("inactive", "disabled", 0, False),  # of an `up` that has not come so far, or by a person
        ("inactive", "enabled", 1, False),  # stopped by a person or by `up`
        ("failed", "enabled", 0, False),  # systemd has tried often enough
        ("activating", "enabled", 0, False),
    ],
)
def test_an_engine_that_was_held_up_at_boot_is_started(
    host: Host, state: str, enabled: str, started_us: int, starts: bool
) -> None:
    host.state(state)
    host.enabled, host.started_us = enabled, started_us
    code, result = host.run()
    assert (code, result["engine"]) == (0, "down")
    assert ("start --no-block vllm.service" in host.log.read_text().splitlines()) == starts
