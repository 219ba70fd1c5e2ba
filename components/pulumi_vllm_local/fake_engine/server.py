"""The HTTP server of the fake engine: routes, API keys, server-sent events, error bodies of vLLM."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from . import answers
from .engine import Aborted, Engine

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Engine", "serve"]

_GUARDED = ("/v1", "/v2", "/inference", "/cohere")
_LARGEST_BODY = 64 << 20


class Handler(BaseHTTPRequestHandler):
    """Serve one connection."""

    protocol_version = "HTTP/1.1"
    server_version = "uvicorn"
    sys_version = ""
    # Otherwise a small write waits 40 ms for the delayed acknowledgement of the client, which slows each token.
    disable_nagle_algorithm = True
    engine: Engine

    def do_GET(self) -> None:
        """Serve the routes that have no request body."""
        self._route(
            {
                "/health": self._health,
                "/ping": self._health,
                "/version": lambda: self._json({"version": self.engine.version}),
                "/load": lambda: self._json({"server_load": self.engine.running}),
                "/metrics": lambda: self._text(self.engine.metrics()),
                "/v1/models": lambda: self._json(answers.models(self.engine)),
            }
        )

    def do_POST(self) -> None:
        """Serve the routes that have a request body."""
        self._route(
            {
                "/v1/chat/completions": lambda: self._generate(answers.chat),
                "/v1/completions": lambda: self._generate(answers.completion),
                "/invocations": lambda: self._generate(answers.invocation),
                "/ping": self._health,
                "/tokenize": self._tokenize,
            }
        )

    def _route(self, routes: dict[str, Any]) -> None:
        path = self.path.partition("?")[0]
        keys = self.engine.keys
        if keys and path.startswith(_GUARDED):
            authorization = self.headers.get("Authorization", "")
            if authorization.removeprefix("Bearer ") not in keys or not authorization.startswith("Bearer "):
                self._read()
                self._json({"error": "Unauthorized"}, 401)
                return
        handle = routes.get(path)
        try:
            if handle is None:
                self._read()
                self._json({"detail": "Not Found"}, 404)
            else:
                handle()
        except answers.Refused as refused:
            self._json(refused.body(), refused.status)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _health(self) -> None:
        self._read()
        self._text("")

    def _tokenize(self) -> None:
        body = self._body()
        count = len(str(body.get("prompt") or body.get("messages") or "")) // 4 + 1
        context = self.engine.context
        self._json({"count": count, "max_model_len": context, "tokens": list(range(3, 3 + count))})

    def _read(self) -> bytes:
        length = int(self.headers.get("Content-Length") or 0)
        if length > _LARGEST_BODY:
            self.close_connection = True
            raise answers.Refused(413, "Request body is too large")
        return self.rfile.read(length)

    def _body(self) -> dict[str, Any]:
        try:
            body = json.loads(self._read())
        except ValueError as error:
            raise answers.Refused(400, f"[{{'type': 'json_invalid', 'msg': '{error}'}}]") from error
        if not isinstance(body, dict):
            raise answers.Refused(400, "Input should be a valid dictionary")
        return body

    def _generate(self, prepare: Any) -> None:
        body = self._body()
        if not self.engine.start_request():
            # Measured on vLLM: a draining server answers 500 here, and /health stays 200.
            raise answers.Refused(500, "Internal Server Error", "InternalServerError")
        try:
            reply = prepare(self.engine, body)
            if body.get("stream"):
                self._events(reply.events())
            else:
                self._json(reply.whole())
        except Aborted as error:
            raise answers.Refused(500, "The engine is shutting down", "InternalServerError") from error
        finally:
            self.engine.finish_request()

    def _events(self, events: Iterator[str]) -> None:
        """Send server-sent events; a server that stops sends an error event first."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for event in events:
                self._chunk(f"data: {event}\n\n")
        except Aborted:
            refused = answers.Refused(500, "The engine is shutting down", "InternalServerError")
            self._chunk(f"data: {json.dumps(refused.body())}\n\n")
            self._chunk("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), "application/json", status)

    def _text(self, value: str) -> None:
        self._send(value.encode(), "text/plain; version=0.0.4; charset=utf-8", 200)

    def _send(self, data: bytes, kind: str, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the name in the library)
        """Log nothing, because the gateway logs requests."""


class Server(ThreadingHTTPServer):
    """A server with one thread per connection; open connections do not keep the process alive."""

    daemon_threads = True
    request_queue_size = 256


def serve(engine: Engine, host: str, port: int) -> Server:
    """Start a server in a thread."""
    handler = type("Bound", (Handler,), {"engine": engine})
    server = Server((host, port), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    return server
