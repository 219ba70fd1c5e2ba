"""`systemctl stop vllm` drains a serving engine and ends a starting one at once. An engine that dies comes back."""

import json

UNIT = "vllm.service"
ENGINE = "http://127.0.0.1:8000"
HOW = f"systemctl show -p ActiveState -p Result {UNIT}"
WELL = {"ActiveState=inactive", "Result=success"}
TOKENS = 200
"""Tokens of a stream: 5 s at 25 ms per token in the fake engine."""

# All local ports are in use, so that nothing can connect to the engine while it stops.
STOP_WITHOUT_A_PORT = """
import pathlib, socket, subprocess, sys
ports = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range")
before = ports.read_text()
ports.write_text("40000 40003")
held = []
try:
    while True:
        held.append(socket.create_connection(("127.0.0.1", 8000)))
except OSError as full:
    print(full)
finally:
    try:
        subprocess.run(["systemctl", "stop", "vllm.service"], check=True)
    finally:
        ports.write_text(before)
"""


def test_a_dead_engine_comes_back_and_stop_ends_it(projects):
    project = projects("fake")
    project.up()

    # With a dead core, the API server exits with code 0.
    shown = project.on_host(
        f"""
engine=$(systemctl show -P MainPID {UNIT})
kill -KILL $(pgrep -P $engine)
until journalctl -q -o cat -u {UNIT} | grep -q 'Scheduled restart job'; do sleep 0.1; done
until curl -fs -o /dev/null {ENGINE}/health; do sleep 0.1; done
journalctl -q -o cat -u {UNIT} | grep 'died unexpectedly'
systemctl show -p NRestarts -p ActiveState {UNIT}
"""
    )
    assert set(shown.splitlines()) > {"NRestarts=1", "ActiveState=active"}, shown
    assert set(project.changes()) == {"same"}, project.pulumi("preview", "--diff").stdout

    body = {"model": project.outputs()["model"], "prompt": "hi", "stream": True}
    body |= {"max_tokens": TOKENS, "ignore_eos": True}
    shown = project.on_host(
        f"""
until curl -fs -o /dev/null {ENGINE}/health; do sleep 0.1; done
curl -sN {ENGINE}/v1/completions -H 'Content-Type: application/json' -d '{json.dumps(body)}' > /run/stream &
until grep -q '"text"' /run/stream; do sleep 0.1; done
python3 - <<'END'
{STOP_WITHOUT_A_PORT}
END
{HOW}
wait
grep -c '"text"' /run/stream
tail -n 2 /run/stream
"""
    )
    lines = shown.splitlines()
    assert "Cannot assign requested address" in shown, "ports were left, so nothing was proved"
    assert set(lines) >= {*WELL, str(TOKENS), "data: [DONE]"}, shown

    # During the start there is nothing to drain, and vLLM ignores SIGTERM until it listens.
    shown = project.on_host(
        f"""
mkdir -p /run/systemd/system/{UNIT}.d
printf '[Service]\\nEnvironment=VLLM_FAKE_START_S=600\\n' > /run/systemd/system/{UNIT}.d/slow.conf
systemctl daemon-reload
systemctl start {UNIT}
until journalctl -o cat _PID=$(systemctl show -P MainPID {UNIT}) | grep -q "fake engine"; do sleep 0.1; done
timeout 20 systemctl stop {UNIT}
{HOW}
rm -r /run/systemd/system/{UNIT}.d
systemctl daemon-reload
"""
    )
    assert set(shown.splitlines()) >= WELL, shown
