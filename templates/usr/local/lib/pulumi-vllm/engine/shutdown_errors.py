"""Ends an answer with an error when vLLM stops before the answer is complete. vLLM itself cuts the connection.

When its time for running requests (--shutdown-timeout) is over, vLLM stops its engine, sets `should_exit` of its server
and waits for the connections (0.32.0, tried; the same code in 0.26.0). Their answers never end by themselves then.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Message = dict[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Message, Receive, Send], Awaitable[None]]

_LOOK_EVERY_S = 0.25
_TEXT = "The server is shutting down; send the request again."
_UNAVAILABLE = 503


class UntilShutdown:
    """An ASGI application that passes POST requests on, until the server stops."""

    def __init__(self, app: App) -> None:
        self.app = app
        self._stopping: asyncio.Event | None = None
        self._watch: asyncio.Task[None] | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        # FastAPI puts itself into the scope, and vLLM its server into FastAPI's state.
        server = getattr(getattr(scope.get("app"), "state", None), "server", None)
        if scope["type"] != "http" or scope["method"] != "POST" or server is None:
            await self.app(scope, receive, send)
            return
        if self._stopping is None:
            self._stopping = asyncio.Event()
            self._watch = asyncio.create_task(_watch(server, self._stopping))
        sent = _Sent(send)
        answer = asyncio.ensure_future(self.app(scope, receive, sent))
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait({answer, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                answer.result()
                return
            answer.cancel()
            await asyncio.wait({answer}, timeout=1)
            await sent.end_with_error(scope["path"])
        finally:
            answer.cancel()
            stopped.cancel()


class _Sent:
    """What was sent of an answer."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._started = self._complete = self._events = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            headers = dict(message.get("headers", ()))
            self._events = headers.get(b"content-type", b"").startswith(b"text/event-stream")
        elif message["type"] == "http.response.body":
            self._complete = not message.get("more_body", False)
        await self._send(message)

    async def end_with_error(self, path: str) -> None:
        """Send what is missing. An answer that began without being a stream is left to break off."""
        if not self._started:
            body = json.dumps(_error(path)).encode()
            headers = [(b"content-type", b"application/json"), (b"retry-after", b"10")]
            length = (b"content-length", str(len(body)).encode())
            start = {"type": "http.response.start", "status": _UNAVAILABLE, "headers": [*headers, length]}
            await self._send(start)
            await self._send({"type": "http.response.body", "body": body})
        elif self._events and not self._complete:
            event = "" if path.startswith(("/v1/chat/", "/v1/completions")) else "event: error\n"
            # The empty line first, in case an event was cut in the middle.
            body = f"\n\n{event}data: {json.dumps(_error(path))}\n\n".encode()
            await self._send({"type": "http.response.body", "body": body, "more_body": False})


def _error(path: str) -> Message:
    """The error in the format of the API that the path belongs to."""
    if path.startswith("/v1/messages"):
        return {"type": "error", "error": {"type": "overloaded_error", "message": _TEXT}}
    if path.startswith("/v1/responses"):
        return {"type": "error", "code": "server_error", "message": _TEXT, "param": None}
    return {"error": {"message": _TEXT, "type": "server_error", "param": None, "code": _UNAVAILABLE}}


async def _watch(server: Any, stopping: asyncio.Event) -> None:
    # vLLM has no event to wait for.
    while not server.should_exit:  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_EVERY_S)
    stopping.set()
