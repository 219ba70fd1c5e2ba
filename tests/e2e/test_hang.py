"""An engine that hangs or dies for good, on a host with real systemd: what comes back, and who hears of it."""

import json

import pytest
from forgotten import powers_off_when_idle_and_is_swept
from harness import answers, wait_for

BACK_WITHIN_S = 180
# The start of the real engine takes up to 150 s on a busy computer with two cores.
REAL_BACK_WITHIN_S = BACK_WITHIN_S + 240
CORE = "pgrep -x VLLM::EngineCor"  # the kernel keeps 15 characters of a name
RECEIVER = """
cat > /root/receiver.py <<'PROGRAM'
from http.server import BaseHTTPRequestHandler, HTTPServer
class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        with open("/root/received", "ab") as file:
            file.write(self.rfile.read(int(self.headers["Content-Length"])) + b"\\n")
        self.send_response(204)
        self.end_headers()
HTTPServer(("127.0.0.1", 9099), Receiver).serve_forever()
PROGRAM
systemd-run -q --unit=receiver /usr/bin/python3 /root/receiver.py
"""


def wait_until_served(project, folder, within_s: float) -> None:
    wait_for(lambda: answers(project, folder), within_s, "answered chat")


def canary(project) -> dict:
    return json.loads(project.on_host("cat /var/lib/pulumi-vllm/canary.json"))


def restarts_after_a_hang(project, folder, core: str, within_s: float) -> None:
    """Stop the core's process, and wait until the canary has brought a served chat back."""
    project.on_host("systemctl start vllm-canary")  # the timer's first run comes after a minute
    assert canary(project)["engine"] == "answers"
    project.on_host(f"kill -STOP $({core})")
    wait_until_served(project, folder, within_s)
    project.on_host("systemctl start vllm-canary")
    health = json.loads(project.on_host("curl -skf https://127.0.0.1/healthz"))
    assert (health["status"], health["last_token_s"] < 60) == ("ok", True)
    (restart,) = canary(project)["memory"]["restarts"]
    assert "its counters stand still" in restart["reason"]
    stacks = project.on_host("journalctl -u vllm -o cat --no-pager | grep -A4 'Fatal Python error: Aborted'")
    assert "most recent call first" in stacks


def ends_after_wrong_answers(project, folder) -> None:
    """Let the core's arithmetic fail, and wait until the canary has brought right answers back."""
    started = project.on_host("systemctl show -P ExecMainStartTimestampMonotonic vllm")
    project.on_host(f"kill -USR1 $({CORE})")
    for _ in range(3):
        project.on_host("systemctl start vllm-canary", check=False)  # as the timer does, one minute apart
    reason = canary(project)["memory"]["restarts"][-1]["reason"]
    assert reason.startswith(
        "it answered wrongly 3 times in a row: 'Say something about the weather.' got token 0"
    )
    wait_until_served(project, folder, BACK_WITHIN_S)
    assert project.on_host("systemctl show -P ExecMainStartTimestampMonotonic vllm") != started
    project.on_host("systemctl start vllm-canary")
    assert (canary(project)["engine"], canary(project)["memory"]["wrong"]) == ("answers", [])


def test_a_hung_engine_is_served_again_and_one_that_keeps_failing_is_reported(projects, tmp_path):
    life = {"owner": "ana", "expires": "8h", "idle_stop": "2h"}
    project = projects("fake", notify_command=["/usr/bin/logger", "-t", "page"], **life)
    project.pulumi("config", "set", "--secret", "pulumi-vllm:notifyUrl", "http://127.0.0.1:9099/planted")
    project.up()
    project.on_host(RECEIVER)
    restarts_after_a_hang(project, tmp_path, CORE, BACK_WITHIN_S)
    ends_after_wrong_answers(project, tmp_path)

    def failed() -> bool:
        project.on_host("systemctl kill --signal=KILL vllm", check=False)
        return project.on_host("systemctl is-failed vllm || true").strip() == "failed"

    wait_for(failed, 120, "failed unit")
    received = wait_for(lambda: project.on_host("cat /root/received", check=False), 30, "notification")
    (message,) = map(json.loads, received.splitlines())  # one, not one for each restart
    assert message["unit"] == "vllm.service"
    assert message["text"].startswith("vllm.service on ")
    journal = project.on_host("journalctl -u 'vllm-notify@*' -o cat --no-pager")
    assert "the notification was sent" in journal
    assert "planted" not in journal
    (paged,) = project.on_host("journalctl -t page -o cat --no-pager").splitlines()
    assert json.loads(paged) == message
    project.up()
    assert answers(project, tmp_path)
    powers_off_when_idle_and_is_swept(project, 2 * 3600)


@pytest.mark.all
def test_the_real_engine_is_served_again_after_a_hang(projects, tmp_path):
    project = projects("real")
    project.up()
    restarts_after_a_hang(project, tmp_path, "pgrep -f VLLM::EngineCore", REAL_BACK_WITHIN_S)
    journal = project.on_host("journalctl -u vllm -o cat --no-pager")
    assert "POST /v1/chat/completions" in journal
    assert "GET /health" not in journal  # the gateway asks every second
