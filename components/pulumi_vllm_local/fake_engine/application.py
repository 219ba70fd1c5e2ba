"""The routes of the fake engine as an ASGI application: API keys, server-sent events, error bodies of vLLM."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from . import answers, responses
from .engine import Aborted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from .engine import Engine

    Send = Callable[[dict[str, Any]], Awaitable[None]]

_GUARDED = ("/v1", "/v2", "/inference", "/cohere")
_JSON = "application/json"
_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class Application:
    """The application. It blocks while it generates, so each request needs a thread and an event loop of its own."""

    def __init__(self, engine: Engine) -> None:
        """Serve this engine."""
        self.engine = engine
        self.routes: dict[tuple[str, str], Callable[[bytes], tuple[Any, str]]] = {
            ("GET", "/health"): lambda _: ("", _TEXT),
            ("GET", "/ping"): lambda _: ("", _TEXT),
            ("POST", "/ping"): lambda _: ("", _TEXT),
            ("GET", "/version"): lambda _: ({"version": engine.version}, _JSON),
            ("GET", "/load"): lambda _: ({"server_load": engine.running}, _JSON),
            ("GET", "/metrics"): lambda _: (engine.metrics(), _TEXT),
            ("GET", "/v1/models"): lambda _: (answers.models(engine), _JSON),
            ("POST", "/tokenize"): lambda raw: (answers.tokenized(engine, _object(raw)), _JSON),
            ("POST", "/detokenize"): lambda raw: (answers.detokenized(_object(raw)), _JSON),
            ("POST", "/v1/messages/count_tokens"): lambda raw: (
                responses.count_tokens(engine, _object(raw)),
                _JSON,
            ),
        }
        self.generating: dict[str, Callable[[Engine, dict[str, Any]], Any]] = {
            "/v1/chat/completions": answers.chat,
            "/v1/completions": answers.completion,
            "/v1/responses": responses.response,
            "/v1/messages": responses.message,
            "/invocations": answers.invocation,
        }

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Send) -> None:
        """Serve one request."""
        raw, path, method = await _body(receive), scope["path"], scope["method"]
        keys = self.engine.keys
        if keys and path.startswith(_GUARDED):
            authorization = dict(scope["headers"]).get(b"authorization", b"").decode()
            if authorization.removeprefix("Bearer ") not in keys or not authorization.startswith("Bearer "):
                await _whole(send, {"error": "Unauthorized"}, _JSON, 401)
                return
        try:
            if method == "POST" and path in self.generating:
                await self._generate(self.generating[path], _object(raw), scope, send)
            elif (method, path) in self.routes:
                # A dead core is 503. A core that hangs is not noticed, as in vLLM.
                status = 503 if path == "/health" and self.engine.dead else 200
                await _whole(send, *self.routes[method, path](raw), status)
            else:
                await _whole(send, {"detail": "Not Found"}, _JSON, 404)
        except answers.Refused as refused:
            body = refused.body()
            if path.startswith("/v1/messages"):
                body = {"type": "error", "error": {"type": refused.kind, "message": refused.message}}
            await _whole(send, body, _JSON, refused.status)

    async def _generate(self, prepare: Any, body: dict[str, Any], scope: dict[str, Any], send: Send) -> None:
        if not self.engine.start_request():
            # Measured on vLLM: a draining server answers 500 here, and /health stays 200.
            raise answers.Refused(500, "Internal Server Error", "InternalServerError")
        try:
            reply = prepare(self.engine, body)
            # The header wins, as in vLLM since 0.32.0.
            priority = dict(scope["headers"]).get(b"x-vllm-priority", body.get("priority", 0))
            with self.engine.place(int(priority)):
                if body.get("stream"):
                    await _events(send, reply.events())
                else:
                    await _whole(send, reply.whole(), _JSON)
        except Aborted as error:
            raise answers.Refused(500, "The engine is shutting down", "InternalServerError") from error
        finally:
            self.engine.finish_request()


async def _body(receive: Any) -> bytes:
    raw, more = b"", True
    while more:
        message = await receive()
        raw, more = raw + message.get("body", b""), message.get("more_body", False)
    return raw


def _object(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except ValueError as error:
        raise answers.Refused(400, f"[{{'type': 'json_invalid', 'msg': '{error}'}}]") from error
    if not isinstance(body, dict):
        raise answers.Refused(400, "Input should be a valid dictionary")
    return body


async def _events(send: Send, events: Iterator[str]) -> None:
    """Send server-sent events; a server that stops sends an error event first."""
    await _start(send, 200, "text/event-stream; charset=utf-8")
    try:
        for event in events:
            await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
    except Aborted:
        refused = answers.Refused(500, "The engine is shutting down", "InternalServerError")
        text = f"data: {json.dumps(refused.body())}\n\ndata: [DONE]\n\n"
        await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _whole(send: Send, value: Any, kind: str, status: int = 200) -> None:
    data = (value if isinstance(value, str) else json.dumps(value)).encode()
    await _start(send, status, kind, len(data))
    await send({"type": "http.response.body", "body": data})


async def _start(send: Send, status: int, kind: str, length: int | None = None) -> None:
    headers = [(b"content-type", kind.encode())]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
