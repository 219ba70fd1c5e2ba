"""A small model hub with faults, and the host programs run as processes, as on the host."""

from __future__ import annotations

import hashlib
import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROGRAMS = Path(__file__).parents[2] / "templates/usr/local/lib/pulumi-vllm"
REVISION = "0123456789abcdef0123456789abcdef01234567"
LFS_FROM = 1000
CHUNK = 64 << 10
FILES = {
    "consolidated-00001.safetensors": random.Random(1).randbytes(400_001),
    "consolidated-00002.safetensors": random.Random(2).randbytes(200_000),
    "params.json": b'{"dim": 256}',
    "sub/a b#c%.txt": b"odd name",
    "empty": b"",
    "model-00001.safetensors": random.Random(3).randbytes(2000),
}


@dataclass
class SmallHub:
    """The hub's files, its faults, and every request that it received."""

    files: dict[str, bytes]
    server: ThreadingHTTPServer | None = None
    rows: list[dict[str, Any]] | None = None  # a listing that replaces the true one
    statuses: list[int] = field(default_factory=list)  # answer these first, one per request for a file
    headers: dict[str, str] = field(default_factory=dict)
    corrupt: dict[str, int] = field(default_factory=dict)  # path: how many answers have a flipped byte
    cut_after: int = 0  # close each body after so many bytes
    piece_s: float = 0.0  # pause between pieces of 64 KiB
    slow_ranges: dict[str, float] = field(
        default_factory=dict
    )  # beginning of a Range: seconds before its body
    token: str = ""
    refuse: tuple[int, str] | None = None  # status and X-Error-Code for everything
    files_at: str = ""  # redirect file requests to another hub
    page: int = 0  # rows per page of the listing
    requests: list[tuple[str, str, str]] = field(default_factory=list)  # path, Range, Authorization
    sent: int = 0
    sent_of: Counter[str] = field(default_factory=Counter)  # the same by path
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        assert self.server
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    @property
    def fetched(self) -> list[str]:
        return [path.split(f"{REVISION}/")[1] for path, _, _ in self.requests if "/resolve/" in path]

    @property
    def kept(self) -> dict[str, bytes]:
        """The files that the tests' patterns select."""
        return {path: data for path, data in self.files.items() if not path.startswith("model-")}

    def listing(self) -> list[dict[str, Any]]:
        if self.rows is not None:
            return self.rows
        rows: list[dict[str, Any]] = [{"type": "directory", "path": "sub", "oid": "0" * 40}]
        for path, data in self.files.items():
            oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            row = {"type": "file", "path": path, "size": len(data), "oid": oid}
            if len(data) > LFS_FROM:
                row |= {"oid": "0" * 40, "lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data)}}
            rows.append(row)
        return rows


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: SmallHub

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, TimeoutError):  # a killed client
            self.close_connection = True

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:  # noqa: PLR0911 - one answer per fault
        hub, where = self.hub, urlsplit(self.path)
        span, token = self.headers.get("Range", ""), self.headers.get("Authorization", "")
        # The gateway of a test that runs beside this one may still ask its engine's old port.
        if where.path != "/health":
            with hub.lock:
                hub.requests.append((self.path, span, token))
        if hub.refuse:
            return self.answer(
                hub.refuse[0], b"no", X_Error_Code=hub.refuse[1], X_Error_Message="hub says no"
            )
        if hub.token and token != f"Bearer {hub.token}":
            return self.answer(401, b"Invalid username or password.")
        if where.path == f"/api/models/acme/small/tree/{REVISION}":
            return self.tree(where.query)
        path = unquote(where.path.partition(f"/resolve/{REVISION}/")[2])
        with hub.lock:
            status = hub.statuses.pop(0) if hub.statuses else 200
        if status != 200:
            return self.answer(status, b"fault", **hub.headers)
        if hub.files_at:
            return self.answer(302, b"moved", Location=hub.files_at + self.path)
        if path not in hub.files:
            return self.answer(404, b"", X_Error_Code="EntryNotFound")
        return self.body(path, span)

    def tree(self, query: str) -> None:
        rows, hub = self.hub.listing(), self.hub
        if not hub.page:
            return self.answer(200, json.dumps(rows).encode())
        at = int(query.partition("cursor=")[2] or 0)
        following = f"{hub.url}{urlsplit(self.path).path}?cursor={at + hub.page}"
        more = {"Link": f'<{following}>; rel="next"'} if at + hub.page < len(rows) else {}
        return self.answer(200, json.dumps(rows[at : at + hub.page]).encode(), **more)

    def body(self, path: str, span: str) -> None:
        hub, data = self.hub, self.hub.files[path]
        first, last = 0, len(data) - 1
        if span:
            left, _, right = span.removeprefix("bytes=").partition("-")
            first, last = int(left), min(int(right or last), last)
        self.send_response(206 if span else 200)
        if span:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        time.sleep(sum(pause for start, pause in hub.slow_ranges.items() if span.startswith(start)))
        view = memoryview(data)[first : last + 1]
        with hub.lock:
            if hub.corrupt.get(path, 0):
                hub.corrupt[path] -= 1
                view = memoryview(bytes([view[0] ^ 0x40]) + bytes(view[1:]))
        for at in range(0, len(view), 65536):
            piece = view[at : at + 65536]
            if hub.cut_after and at + len(piece) > hub.cut_after:
                piece = piece[: hub.cut_after - at]
                self.close_connection = True
            self.wfile.write(piece)
            with hub.lock:
                hub.sent += len(piece)
                hub.sent_of[path] += len(piece)
            if self.close_connection:
                return
            if hub.piece_s:
                time.sleep(hub.piece_s)


def serve(files: dict[str, bytes]) -> SmallHub:
    hub = SmallHub(files)
    handler = type("Bound", (Handler,), {"hub": hub})
    hub.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.server.daemon_threads = True
    hub.server.block_on_close = False
    threading.Thread(target=hub.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return hub


@pytest.fixture
def small_hub() -> Iterator[Callable[[dict[str, bytes]], SmallHub]]:
    """Start hubs; they end with the test."""
    hubs: list[SmallHub] = []

    def start(files: dict[str, bytes]) -> SmallHub:
        hubs.append(serve(files))
        return hubs[-1]

    yield start
    for hub in hubs:
        assert hub.server
        hub.server.shutdown()
        hub.server.server_close()


@dataclass(frozen=True)
class Program:
    """One program of the host with its configuration."""

    name: str
    folder: Path

    def command(self, *args: str, **config: Any) -> list[str]:
        place = self.folder / f"{self.name}.json"
        place.write_text(json.dumps(config))
        return [sys.executable, "-BsE", str(PROGRAMS / self.name), str(place), *args]

    def __call__(self, *args: str, **config: Any) -> subprocess.CompletedProcess[str]:
        command = self.command(*args, **config)
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def unused_port() -> int:
    """A TCP port of loopback on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Program]:
    """A host program that takes its configuration as keywords."""
    return lambda name: Program(name, tmp_path)


@pytest.fixture
def hub(small_hub: Callable[[dict[str, bytes]], SmallHub]) -> SmallHub:
    return small_hub(dict(FILES))


@pytest.fixture
def weights(program: Callable[[str], Program]) -> Program:
    return program("weights")


@pytest.fixture
def config(hub: SmallHub, tmp_path: Path) -> dict[str, Any]:
    return {
        "repository": "acme/small",
        "revision": REVISION,
        "endpoint": hub.url,
        "exclude": ["model-*"],
        "directory": str(tmp_path / "small" / REVISION),
        "progress": str(tmp_path / "progress.json"),
        "chunk_bytes": CHUNK,
        "parallel": 4,
        "backoff_s": 0.01,
        "attempts": 4,
        "timeout_s": 2,
    }


@pytest.fixture
def found() -> Callable[[dict[str, Any]], dict[str, bytes]]:
    """The files in the model's directory, unfinished ones included."""

    def files_of(config: dict[str, Any]) -> dict[str, bytes]:
        root = Path(config["directory"])
        return {
            str(place.relative_to(root)): place.read_bytes()
            for place in root.rglob("*")
            if place.is_file() and place.name != ".manifest.json"
        }

    return files_of
