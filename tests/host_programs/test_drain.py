"""Draining through HAProxy's admin socket: a small fake for the messages, the real HAProxy for the effect."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = Path(__file__).parents[2] / "templates/usr/local/lib/pulumi-vllm/drain"


def drain(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-BsE", str(PROGRAM), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


class FakeAdminSocket:
    """An admin socket whose server has `left` running requests, one fewer at each query once it is drained."""

    def __init__(self, admin_socket: Path, left: int, refuse: str = "") -> None:
        self.left, self.refuse, self.commands = left, refuse, list[str]()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(admin_socket))
        self.listener.listen()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                link, _ = self.listener.accept()
            except OSError:
                return
            with link:
                command = link.recv(4096).decode().strip()
                self.commands.append(command)
                link.sendall(self.answer(command).encode())

    def answer(self, command: str) -> str:
        if command.startswith("set"):
            return self.refuse + "\n"
        if any(one.startswith("set") for one in self.commands):
            self.left = max(0, self.left - 1)
        return f"# pxname,svname,qcur,qmax,scur,smax\nvllm,local,0,0,{self.left},9\n\n"

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(timeout=5)


@pytest.fixture
def admin_socket(tmp_path: Path) -> Path:
    return tmp_path / "admin.sock"


def test_whoever_drains_says_for_how_long(admin_socket: Path) -> None:
    """The stack's drain_timeout_s is not known on the host, and a second default would differ from it."""
    result = drain("--socket", str(admin_socket))
    assert result.returncode == 2
    assert "one of the arguments --timeout --close --undo " in result.stderr


def test_without_a_gateway_there_is_nothing_to_drain(admin_socket: Path) -> None:
    result = drain("--socket", str(admin_socket), "--timeout", "10")
    assert result.returncode == 0
    assert "nothing to do" in result.stdout


def test_it_waits_for_the_last_request(admin_socket: Path) -> None:
    admin = FakeAdminSocket(admin_socket, left=2)
    try:
        result = drain("--socket", str(admin_socket), "--timeout", "10")
    finally:
        admin.close()
    assert result.returncode == 0
    assert "no requests left" in result.stdout
    assert admin.commands[1] == "set server vllm/local state drain"


def test_it_reports_how_many_requests_are_left(admin_socket: Path) -> None:
    admin = FakeAdminSocket(admin_socket, left=99)
    try:
        result = drain("--socket", str(admin_socket), "--timeout", "0")
    finally:
        admin.close()
    assert result.returncode == 1
    assert result.stderr == "drain: 98 requests still running after 0 s; a stop now cuts them off\n"


def test_close_refuses_new_requests_and_waits_for_none(admin_socket: Path) -> None:
    admin = FakeAdminSocket(admin_socket, left=99)
    try:
        result = drain("--socket", str(admin_socket), "--close")
    finally:
        admin.close()
    assert result.returncode == 0
    assert admin.commands == ["show stat vllm 4 -1", "set server vllm/local state drain"]


def test_undo_reopens_and_a_refusal_is_an_error(admin_socket: Path) -> None:
    admin = FakeAdminSocket(admin_socket, left=0)
    try:
        assert "sends requests to vllm again" in drain("--socket", str(admin_socket), "--undo").stdout
        admin.refuse = "No such server."
        result = drain("--socket", str(admin_socket), "--timeout", "10")
    finally:
        admin.close()
    assert admin.commands[1] == "set server vllm/local state ready"
    assert result.returncode == 1
    assert "No such server." in result.stderr


GATEWAY = """
global
    stats socket {folder}/admin.sock mode 600 level admin
defaults
    mode http
    timeout connect 3s
    timeout client 20s
    timeout server 20s
frontend api
    bind 127.0.0.1:{port}
    http-request deny status 503 hdr Retry-After 10 unless {{ nbsrv(vllm) gt 0 }}
    default_backend vllm
backend vllm
    option http-server-close
    server local 127.0.0.1:{engine}
"""


class Slow(BaseHTTPRequestHandler):
    """Answers after a second."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        time.sleep(1)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[str]:
    if not shutil.which("haproxy", path="/usr/sbin:/usr/bin"):
        pytest.skip("haproxy is not installed")
    engine = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=engine.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = GATEWAY.format(folder=tmp_path, port=port, engine=engine.server_address[1])
    (tmp_path / "gateway.cfg").write_text(text)
    command = ["/usr/sbin/haproxy", "-db", "-f", str(tmp_path / "gateway.cfg")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as haproxy:
        end = time.monotonic() + 10
        while not (tmp_path / "admin.sock").exists() and time.monotonic() < end:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/"
        haproxy.terminate()
    engine.shutdown()
    engine.server_close()


@pytest.mark.ci
def test_a_running_request_ends_and_a_new_one_is_refused(gateway: str, admin_socket: Path) -> None:
    answers: list[bytes] = []

    def ask() -> None:
        with urllib.request.urlopen(gateway, timeout=10) as answer:
            answers.append(answer.read())

    running = threading.Thread(target=ask)
    running.start()
    time.sleep(0.3)
    result = drain("--socket", str(admin_socket), "--timeout", "10")
    running.join(timeout=10)
    assert result.returncode == 0
    assert answers == [b"ok"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(gateway, timeout=10)
    with refused.value as answer:
        assert (answer.code, answer.headers["Retry-After"]) == (503, "10")
    assert drain("--socket", str(admin_socket), "--undo").returncode == 0
    ask()
    assert answers == [b"ok", b"ok"]


def state(admin_socket: Path) -> str:
    """The engine's `srv_admin_state`."""
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(admin_socket))
        link.sendall(b"show servers state vllm\n")
        text = b"".join(iter(lambda: link.recv(65536), b"")).decode()
    return text.splitlines()[2].split()[6]


@pytest.mark.ci
@pytest.mark.parametrize(("before", "while_it_stops", "after"), [("ready", "1", "0"), ("drain", "8", "8")])
def test_an_engine_is_closed_while_it_stops_unless_somebody_has_drained_it(
    gateway: str, admin_socket: Path, before: str, while_it_stops: str, after: str
) -> None:
    assert gateway
    own = ["--socket", str(admin_socket), "--server", "vllm/local"]
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(admin_socket))
        link.sendall(f"set server vllm/local state {before}\n".encode())
        link.recv(4096)
    assert drain(*own, "--stopping").returncode == 0
    assert state(admin_socket) == while_it_stops
    assert drain(*own, "--stopped").returncode == 0
    assert state(admin_socket) == after


@pytest.mark.ci
def test_an_engine_that_the_gateway_does_not_have_is_an_error(gateway: str, admin_socket: Path) -> None:
    assert gateway
    for server in ("vllm/engine9", "nothing/local"):
        result = drain("--socket", str(admin_socket), "--server", server, "--stopping")
        assert result.returncode == 1
        assert f"HAProxy has no server {server}" in result.stderr


@pytest.mark.ci
def test_a_busy_admin_socket_is_asked_again(gateway: str, admin_socket: Path) -> None:
    others = [socket.socket(socket.AF_UNIX) for _ in range(12)]
    try:
        for one in others:
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                one.connect(str(admin_socket))
        result = drain("--socket", str(admin_socket), "--timeout", "10")
    finally:
        for one in others:
            one.close()
    assert result.returncode == 0, result.stderr
    assert "no requests left" in result.stdout
