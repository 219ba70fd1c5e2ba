"""Notifications to a small server on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = Path(__file__).parents[2] / "templates/usr/local/lib/pulumi-vllm"
SYSTEMCTL = "#!/bin/sh\nprintf 'Result=exit-code\\nExecMainStatus=1\\nNRestarts=5\\n'\n"


class Receiver:
    """A server that answers the first requests with `statuses`, and keeps every message."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.messages: list[dict[str, Any]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.messages.append(json.loads(body))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
                self.end_headers()

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/services/planted-secret"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    there = Receiver()
    yield there
    there.server.shutdown()
    there.server.server_close()


def notify(
    folder: Path, address: str, command: list[str] | None = None, unit: str = "vllm.service"
) -> subprocess.CompletedProcess[str]:
    (folder / "notify.json").write_text(json.dumps({"command": command or []}))
    (folder / "systemctl").write_text(SYSTEMCTL)
    (folder / "systemctl").chmod(0o755)
    (folder / "address").write_text(address)
    words = [
        sys.executable, "-BsE", str(PROGRAMS / "notify"), unit, "--config", str(folder / "notify.json"),
        "--address-file", str(folder / "address"), "--canary", str(folder / "canary.json"),
        "--lifetime", str(folder / "lifetime.json"),
    ]  # fmt: skip
    environment = {"PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=90, check=False, env=environment)
    assert "Traceback" not in done.stderr, done.stderr
    assert "planted-secret" not in done.stdout + done.stderr
    return done


def test_a_failed_unit_is_told_with_its_last_restart(receiver: Receiver, tmp_path: Path) -> None:
    hang = {"time": "2026-11-30T03:00:00Z", "reason": "no token within 30 s"}
    (tmp_path / "canary.json").write_text(json.dumps({"memory": {"restarts": [hang]}}))
    done = notify(tmp_path, receiver.address)
    assert (done.returncode, done.stderr) == (0, "")
    (sent,) = receiver.messages
    assert (sent["unit"], sent["result"], sent["exit_status"], sent["restarts"]) == (
        "vllm.service", "exit-code", "1", "5",
    )  # fmt: skip
    assert sent["last_restart"] == hang
    assert "the canary last ended it at 2026-11-30T03:00:00Z (no token within 30 s)" in sent["text"]


def test_a_server_that_refuses_once_is_tried_again(receiver: Receiver, tmp_path: Path) -> None:
    receiver.statuses = [500]
    done = notify(tmp_path, receiver.address)
    assert (done.returncode, len(receiver.messages)) == (0, 2)
    assert "the notification was not accepted (status 500)" in done.stdout


def test_without_an_address_the_journal_says_what_failed(tmp_path: Path) -> None:
    done = notify(tmp_path, "")
    assert done.returncode == 0
    assert "vllm.service on " in done.stdout
    assert "no notification is sent: the stack has neither notifyUrl nor server.notify_command" in done.stdout


@pytest.mark.parametrize(
    "address", ["file:///etc/planted-secret", "planted-secret", "https://[planted-secret"]
)
def test_an_address_that_is_not_valid_is_refused_without_being_printed(tmp_path: Path, address: str) -> None:
    done = notify(tmp_path, address)
    assert done.returncode == 2
    assert done.stderr.startswith("notify: notifyUrl: is not ")


def test_a_command_gets_the_message_on_its_standard_input(tmp_path: Path) -> None:
    there = tmp_path / "message"
    done = notify(tmp_path, "", ["/bin/sh", "-c", f"cat > {there}"])
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(there.read_text())["unit"] == "vllm.service"


@pytest.mark.parametrize(
    ("command", "code", "error"),
    [
        (["/bin/sh", "-c", "exit 3"], 1, "/bin/sh: ended with exit code 3"),
        (
            ["/nowhere/page"],
            2,
            "/nowhere/page: can't be run (No such file or directory); change server.notify_command",
        ),
    ],
)
def test_a_command_that_fails_does_not_keep_the_address_from_its_message(
    receiver: Receiver, tmp_path: Path, command: list[str], code: int, error: str
) -> None:
    done = notify(tmp_path, receiver.address, command)
    assert (done.returncode, done.stderr) == (code, f"notify: {error}\n")
    assert len(receiver.messages) == 1


def test_an_address_that_fails_does_not_keep_the_command_from_its_message(tmp_path: Path) -> None:
    there = tmp_path / "message"
    done = notify(tmp_path, "planted-secret", ["/bin/sh", "-c", f"cat > {there}"])
    assert done.returncode == 2
    assert json.loads(there.read_text())["unit"] == "vllm.service"


LIFETIME = "vllm-lifetime.service"


def test_a_machine_that_powers_off_soon_is_reported_with_its_reason(
    receiver: Receiver, tmp_path: Path
) -> None:
    notice = {"text": "The machine powers off in 15 minutes: …", "reason": "expires", "powers_off_in_s": 900}
    (tmp_path / "lifetime.json").write_text(json.dumps({"notice": notice}))
    done = notify(tmp_path, receiver.address, unit=LIFETIME)
    assert (done.returncode, done.stderr) == (0, "")
    (sent,) = receiver.messages
    assert sent["text"].endswith(": The machine powers off in 15 minutes: …")
    assert (sent["reason"], sent["powers_off_in_s"], sent["unit"]) == ("expires", 900, LIFETIME)
    assert {"host", "time"} <= sent.keys()


def test_without_a_message_of_the_lifetime_nothing_is_sent(receiver: Receiver, tmp_path: Path) -> None:
    done = notify(tmp_path, receiver.address, unit=LIFETIME)
    assert done.returncode == 1
    assert "lifetime.json: holds no message" in done.stderr
    assert receiver.messages == []
