"""A rental API on loopback that gives scripted answers and records the requests."""

from __future__ import annotations

import json
import random
import threading
from collections import defaultdict, deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pulumi_vllm.spheron.client import Spheron
from pulumi_vllm.spheron.offer_listing import parse_groups

KEY = "sai_pk_planted-Secret_123"
TEAM = "66f0c0ffee0000000000b001"


@dataclass
class Answer:
    """One scripted answer. `text` takes precedence over `body`; `drop` closes the connection after `act`."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    text: str | None = None
    drop: bool = False
    act: Any = None

    def data(self) -> bytes:
        if self.text is not None:
            return self.text.encode()
        return b"" if self.body is None else json.dumps(self.body).encode()


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: Any


class Cloud:
    """Answers by "METHOD path": those of `script` once each and in order, then `always`, else a 404."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.script: dict[str, deque[Answer]] = defaultdict(deque)
        self.always: dict[str, Answer] = {
            "GET /api/balance": Answer({"teams": [{"teamId": TEAM, "balance": 82.4, "isCurrentTeam": True}]}),
            "GET /api/deployments": Answer([]),
        }
        self.guard = threading.Lock()
        self.url = ""

    def once(self, call: str, *answers: Answer) -> None:
        self.script[call] += answers

    def count(self, call: str) -> int:
        return sum(f"{request.method} {request.path}" == call for request in self.requests)

    def next(self, request: Request) -> Answer:
        call = f"{request.method} {request.path}"
        with self.guard:
            self.requests.append(request)
            queue = self.script[call]
            answer = queue.popleft() if queue else self.always.get(call)
        if answer is None:
            return Answer({"error": "Not found", "code": "NOT_FOUND", "details": {}}, 404)
        if answer.act:
            answer.act()
        return answer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Log nothing."""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        request = Request(self.command, parts.path, parse_qs(parts.query), dict(self.headers), body)
        answer = self.server.cloud.next(request)
        if answer.drop:
            self.close_connection = True
            return
        data = answer.data()
        self.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_DELETE = do_PATCH = _serve  # noqa: N815


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = False


class Clock:
    """A clock that moves only when something sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.guard = threading.Lock()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self.guard:
            if seconds > 0:
                self.slept.append(seconds)
                self.now += seconds


@pytest.fixture
def cloud():
    random.seed(1)
    found = Cloud()
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.cloud = found
        found.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        server.shutdown()
        thread.join()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def spheron(cloud, clock):
    client = Spheron(KEY, url=cloud.url, clock=clock, sleep=clock.sleep)
    yield client
    client.close()


@pytest.fixture
def answer():
    return Answer


@pytest.fixture
def key():
    return KEY


@pytest.fixture
def team():
    return TEAM


@pytest.fixture
def group():
    """A function: a group of the offers list with these offers."""

    def make(*changes, gpu_type="H200_SXM5"):
        base = {
            "provider": "spheron-es",
            "offerId": "US Central 1::gpu-h200-sxm::1gpu-16vcpu-200gb",
            "name": "1x H200",
            "gpuCount": 1,
            "gpu_memory": 141,
            "price": 4.72,
            "available": True,
            "maintenance": False,
            "clusters": ["US Central 1"],
            "os_options": ["AlmaLinux 9 Plain", "Ubuntu 22.04", "Ubuntu 24.04 (CUDA 13)"],
            "instanceType": "DEDICATED",
            "supportsCloudInit": True,
        }
        offers = [{**base, "offerId": f"offer {number}", **change} for number, change in enumerate(changes)]
        return {"gpuType": gpu_type, "surprise": 1, "offers": offers}

    return make


@pytest.fixture
def offers(group):
    """A function: parsed offers."""
    return lambda *changes, **more: parse_groups([group(*changes, **more)])


@pytest.fixture
def machine():
    """A function: an instance as the API shows it, which calls it a deployment."""

    def make(**changes):
        return {
            "id": "66f0c0ffee0000000000c001",
            "name": "ms4-prod-7f3a91",
            "providerId": "spheron-es",
            "gpuType": "H200_SXM5",
            "gpuCount": 1,
            "offerId": "offer 0",
            "region": "US Central 1",
            "status": "running",
            "ipAddress": "192.0.2.7",
            "user": None,
            "sshPort": None,
            "hourlyRate": 4.72,
            "instanceType": "DEDICATED",
            "createdAt": "2026-11-03T09:00:00Z",
            "newField": {"of": "tomorrow"},
        } | changes

    return make


@pytest.fixture
def volume():
    """A function: a volume as the API shows it."""

    def make(**changes):
        return {
            "id": "66f0c0ffee0000000000d001",
            "volumeId": "computefilesystem-u00example01",
            "name": "ms4-weights",
            "providerId": "spheron-es",
            "region": "US Central 1",
            "sizeInGb": 400,
            "status": "available",
            "hourlyRate": 0.000132,
            "attachedToDeploymentIds": [],
        } | changes

    return make
