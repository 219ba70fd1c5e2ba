"""What `idle_stop` counts as use: the real gateway's table of API keys, read by the program of the host."""

import json
import subprocess
import sys
from pathlib import Path

import attacks
import pytest
from rendered_gateway import KEYS

LIFETIME = Path(__file__).parents[2] / "templates/usr/local/lib/pulumi-vllm/lifetime"
USER, CANARY = KEYS["team-a"], KEYS["team-b"]


def idle_s(gateway, folder) -> float:
    """Let a minute pass on a host of this gateway, and return the seconds for which it has been idle."""
    state, config = folder / "state.json", folder / "config.json"
    if state.exists():
        memory = json.loads(state.read_text())
        state.write_text(json.dumps(memory | {"at_s": memory["at_s"] - 60}))
    settings = {
        "expires_s": None,
        "idle_stop_s": 7200,
        "drain_timeout_s": 1,
        "gateway_socket": str(gateway.socket),
        "canary_key": "team-b",
        "engine_url": "http://127.0.0.1:9",
        "busy_units": [],
        "last_up": str(folder / "last-up"),
        "state": str(state),
        "drain": "/nowhere",
        "notice_unit": "none.service",
    }
    config.write_text(json.dumps(settings))
    done = subprocess.run(
        [sys.executable, "-BsE", str(LIFETIME), str(config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(state.read_text())["idle_s"]


async def test_only_requests_with_the_key_of_a_user_are_use(gateways, tmp_path):
    gateway = gateways()
    idle_s(gateway, tmp_path)
    for data in (
        attacks.request(CANARY, "/v1/models", "GET", b""),
        attacks.request("no-such-key", "/v1/models", "GET", b""),
        attacks.request(USER, "/healthz", "GET", b"", auth=""),
    ):
        await gateway.one(data)
    assert idle_s(gateway, tmp_path) == pytest.approx(60, abs=5)
    answer = await gateway.one(attacks.request(USER, "/v1/models", "GET", b""))
    assert answer.status == 200
    assert idle_s(gateway, tmp_path) == 0
    gateway.command("clear table keys")
    assert idle_s(gateway, tmp_path) == pytest.approx(60, abs=5)
