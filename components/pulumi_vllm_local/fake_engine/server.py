"""The HTTP server of the fake engine: connections, and the ASGI middlewares that vLLM would load."""

from __future__ import annotations

import asyncio
import select
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from .application import Application
from .engine import Engine

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Engine", "serve"]

_LARGEST_BODY = 64 << 20


class Handler(BaseHTTPRequestHandler):
    """Serve one connection."""

    protocol_version = "HTTP/1.1"
    server_version = "uvicorn"
    sys_version = ""
    # Otherwise a small write waits 40 ms for the delayed acknowledgement of the client, which slows each token.
    disable_nagle_algorithm = True
    application: Any

    def do_GET(self) -> None:
        """Serve a request that has no body."""
        self._serve()

    def do_POST(self) -> None:
        """Serve a request that has a body."""
        self._serve()

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > _LARGEST_BODY:
            self.close_connection = True
            self.send_error(413)
            return
        left: int | None = length

        async def receive() -> dict[str, Any]:
            nonlocal left
            piece = None if left is None else await self._piece(left)
            if left is None or piece is None:
                return {"type": "http.disconnect"}
            left = left - len(piece) or None
            return {"type": "http.request", "body": piece, "more_body": left is not None}

        path, _, query = self.path.partition("?")
        scope = {
            "type": "http", "method": self.command, "path": unquote(path), "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in self.headers.items()],
        }  # fmt: skip
        self._chunked = False
        try:
            asyncio.run(self.application(scope, receive, self._send))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    async def _piece(self, most: int) -> bytes | None:
        """What has arrived of a body, as in uvicorn, once something has; None if the client has gone."""
        self.connection.settimeout(0)
        arrived = select.poll()  # select.select takes no file descriptor above 1,023
        arrived.register(self.connection, select.POLLIN)
        try:
            while most:
                readable = arrived.poll(0)
                if piece := self.rfile.read1(most):
                    return piece
                if readable:
                    return None
                await asyncio.sleep(0.002)
        finally:
            self.connection.settimeout(None)
        return b""

    async def _send(self, message: dict[str, Any]) -> None:
        """Write one ASGI message. A response without a length is sent in chunks."""
        if message["type"] == "http.response.start":
            names = {name for name, _ in message["headers"]}
            self._chunked = b"content-length" not in names
            self.send_response(message["status"])
            for name, value in message["headers"]:
                self.send_header(name.decode().title(), value.decode())
            if self._chunked:
                self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            return
        data = message.get("body", b"")
        if not self._chunked:
            self.wfile.write(data)
            return
        if data:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        if not message.get("more_body"):
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the name in the library)
        """Log nothing, because the gateway logs requests."""


class Server(ThreadingHTTPServer):
    """A server with one thread per connection; open connections do not keep the process alive."""

    daemon_threads = True
    request_queue_size = 256


def serve(engine: Engine, host: str, port: int, middlewares: Sequence[Any] = ()) -> Server:
    """Start a server in a thread. A middleware is a class that is called with the application that it wraps."""
    application: Any = Application(engine)
    for middleware in middlewares:
        application = middleware(application)
    handler = type("Bound", (Handler,), {"application": staticmethod(application)})
    server = Server((host, port), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    return server
