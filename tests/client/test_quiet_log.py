"""The access log of a real uvicorn with the filter that the middleware installs."""

import socket
import subprocess
import sys
import time

import requests
from adapted import ENGINE_MODULES

PROGRAM = """
import sys
import quiet_log, uvicorn

async def application(scope, receive, send):
    status = 503 if scope["query_string"] == b"fail" or scope["path"] == "/metrics" else 200
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})

quiet_log.install()
uvicorn.run(application, port=int(sys.argv[1]), lifespan="off")
"""


def test_only_checks_that_pass_are_left_out():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(port)],
        env={"PYTHONPATH": str(ENGINE_MODULES)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        for _ in range(200):
            try:
                requests.get(f"http://127.0.0.1:{port}/health", timeout=5)
                break
            except requests.ConnectionError:
                time.sleep(0.05)
        for path in ("/health", "/health?fail", "/metrics", "/v1/models"):
            requests.get(f"http://127.0.0.1:{port}{path}", timeout=5)
        requests.post(f"http://127.0.0.1:{port}/health", timeout=5)
    finally:
        server.terminate()
        printed = server.communicate(timeout=20)[0]
    lines = [
        line.split('"')[1] + line.rpartition('"')[2] for line in printed.splitlines() if "HTTP/1.1" in line
    ]
    assert lines == [
        "GET /health?fail HTTP/1.1 503 Service Unavailable",
        "GET /metrics HTTP/1.1 503 Service Unavailable",
        "GET /v1/models HTTP/1.1 200 OK",
        "POST /health HTTP/1.1 200 OK",
    ]
