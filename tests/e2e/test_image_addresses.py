"""Addresses of images, asked of vLLM itself on a machine: what it fetches, and what it must not."""

import sys
from pathlib import Path

import pytest
import requests

sys.path.insert(0, str(Path(__file__).parents[1] / "client"))
from adapted import black_image

pytestmark = pytest.mark.all

# Ports from 32768 on, to which the firewall lets vLLM's processes connect on their own host.
PUBLIC, INSIDE = 40080, 40081
SERVERS = f"""
cat > /run/images.py <<'PROGRAM'
import base64, http.server, sys, threading
class Images(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with open("/run/images.log", "a") as log:
            print(self.server.server_port, self.path, file=log)
        if self.path.startswith("/redirect"):
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:{INSIDE}/secret.png")
            self.end_headers()
            return
        body = base64.b64decode("{black_image(64, 64)}")
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words):
        pass
for port in ({PUBLIC}, {INSIDE}, 80):
    server = http.server.ThreadingHTTPServer(("0.0.0.0", port), Images)
    threading.Thread(target=server.serve_forever).start()
PROGRAM
systemd-run --quiet --unit=images python3 /run/images.py
own=$(ip -o -4 route get 192.0.2.1 | sed 's/.* src \\([0-9.]*\\).*/\\1/')
echo "$own images.example" >> /etc/hosts
echo "127.0.0.1 inside.example" >> /etc/hosts
echo "169.254.169.254 metadata.example" >> /etc/hosts
for _ in $(seq 50); do curl -so /dev/null http://127.0.0.1:80/ && break; sleep 0.1; done
: > /run/images.log
"""


@pytest.fixture
def ask(projects, tmp_path):
    project = projects(
        "real",
        gateway={"media_domains": ["images.example", "inside.example", "metadata.example"]},
    )
    project.up()
    project.on_host(SERVERS)
    outputs = project.outputs()
    ca = tmp_path / "ca.pem"
    ca.write_text(outputs["ca_certificate"])

    def ask(address: str) -> tuple[int, set[str]]:
        """The status of a chat about the image at an address, and what the servers were asked for."""
        project.on_host(": > /run/images.log")
        image = {"type": "image_url", "image_url": {"url": address}}
        answer = requests.post(
            outputs["endpoint"] + "/chat/completions",
            json={
                "model": outputs["model"],
                "max_tokens": 2,
                "messages": [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]}],
            },
            headers={"Authorization": f"Bearer {outputs['api_key']}"},
            verify=str(ca),
            timeout=120,
        )
        return answer.status_code, set(project.on_host("cat /run/images.log").splitlines())

    return ask


def test_only_the_named_hosts_are_asked_and_no_private_address(ask):
    assert ask(f"http://images.example:{PUBLIC}/x.png") == (200, {f"{PUBLIC} /x.png"}), "the servers work"

    status, asked = ask(f"http://images.example:{PUBLIC}/redirect.png")
    assert (status >= 400, asked) == (True, {f"{PUBLIC} /redirect.png"}), "the redirect is not followed"

    private = {
        "a name of the loopback": "http://inside.example/x.png",
        "a name of the host's own address": "http://images.example/x.png",
        "a name of the metadata service": "http://metadata.example/latest/meta-data",
        "the gateway's metrics": "http://inside.example:8405/metrics",
        "a name that is not allowed": f"http://localhost:{PUBLIC}/x.png",
        "an address that is not allowed": f"http://127.0.0.1:{PUBLIC}/x.png",
        "a user before another host": f"http://images.example@127.0.0.1:{PUBLIC}/x.png",
        "a backslash before another host": f"http://images.example\\@127.0.0.1:{PUBLIC}/x.png",
        "a file": "file:///etc/hostname",
        "a file of a host": "file://images.example/etc/hostname",
    }
    found = {what: ask(address) for what, address in private.items()}
    assert {what: asked for what, (_, asked) in found.items() if asked} == {}
    assert all(400 <= status < 600 for status, _ in found.values()), found
