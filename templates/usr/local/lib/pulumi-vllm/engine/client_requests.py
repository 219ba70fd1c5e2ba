"""An ASGI middleware of vLLM that adapts requests of today's clients, and refuses those that would block all others.

vLLM loads it with --middleware. PULUMI_VLLM_REQUESTS names its configuration. It needs the standard library only.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import quiet_log
import server_repairs
from key_answers import KeyAnswers, TooManyAnswers
from key_tokens import KeyTokens
from refusals import BAD_REQUEST, MANY_REQUESTS, MESSAGES, Refused, answer
from request_body import body_in_time, check_signs, parsed
from request_changes import CHATS, adapt, set_priority
from request_limits import check_limits, choices
from shutdown_errors import UntilShutdown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from key_tokens import Counted

    Message = dict[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Message, Receive, Send], Awaitable[None]]

_READ = (*CHATS, *MESSAGES, "/v1/completions", "/v1/responses", "/detokenize")
_FREE = ("/tokenize", "/detokenize", "/v1/messages/count_tokens")
"""Routes that take no tokens of the model."""
_STREAMS = ("/v1/chat/completions", "/v1/completions")
"""Routes whose streams hold the usage only if a client asks for it."""
_ORDERED = (*_STREAMS, "/v1/responses")
"""Routes whose requests may hold a priority."""
_ONE_MODEL = "/v1/models/"
_SOON_S = 5
"""As the gateway says of requests beyond `concurrent`."""


class ClientRequests:
    """The middleware."""

    def __init__(self, app: App) -> None:
        self.app = UntilShutdown(app)
        self.settings: Message = json.loads(Path(os.environ["PULUMI_VLLM_REQUESTS"]).read_text())
        self.tokens = KeyTokens()
        self.answers = KeyAnswers(self.settings["places"])
        server_repairs.apply()
        quiet_log.install()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, adapted or as it is, or refuse it."""
        path = str(scope.get("path", ""))
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["method"] == "GET" and path.startswith(_ONE_MODEL):
            await self._one_model(scope, receive, send)
        elif scope["method"] == "POST":
            counted = None if path in _FREE else self.tokens.request(dict(scope["headers"]))
            await self._post(scope, receive, send, counted)
        else:
            await self.app(scope, receive, send)

    async def _post(self, scope: Message, receive: Receive, send: Send, counted: Counted | None) -> None:
        path = scope["path"]
        if counted is None:
            await self._read(scope, receive, send, None)
        elif wait_s := counted.wait_s():
            message = f"This key may use {counted.limit:,} tokens in 60 s (tokens_per_minute). Try again in {wait_s} s."
            refused = Refused("", message, MANY_REQUESTS)
            await answer(send, refused.status, refused.body(path), wait_s)
        else:
            send = counted.counting(send)
            try:
                await self._read(scope, receive, send, counted)
            finally:
                counted.end()

    async def _read(self, scope: Message, receive: Receive, send: Send, counted: Counted | None) -> None:
        path, headers = scope["path"], dict(scope["headers"])
        try:
            raw = await body_in_time(receive, headers)
            if raw is None:
                return  # the client has gone
            adapted, answers = raw, 1
            if path in _READ:
                adapted, answers = self._adapted(path, raw, headers, counted)
            pending: list[Message] = [{"type": "http.request", "body": adapted, "more_body": False}]

            async def replay() -> Message:
                # Later messages tell that the client has gone.
                return pending.pop() if pending else await receive()

            with self.answers.running(headers, 0 if path in _FREE else answers):
                await self.app(scope if adapted is raw else _with_length(scope, len(adapted)), replay, send)
        except TooManyAnswers as many:
            status, wait_s = (MANY_REQUESTS, _SOON_S) if many.later else (BAD_REQUEST, 0)
            await answer(send, status, Refused("n", many.message, status).body(path), wait_s)
        except Refused as refused:
            await answer(send, refused.status, refused.body(path))

    def _adapted(
        self, path: str, raw: bytes, headers: dict[bytes, bytes], counted: Counted | None
    ) -> tuple[bytes, int]:
        """What vLLM gets, which is `raw` itself if nothing changes, and how many answers it asks for."""
        check_signs(raw, self.settings["limits"]["characters"])
        try:
            body, changed = parsed(raw)
        except json.JSONDecodeError:
            return raw, 1  # vLLM says what is wrong with it
        if not isinstance(body, dict):
            return raw, 1
        changed |= adapt(path, body, self.settings)
        characters = check_limits(path, body, self.settings)
        if path in _ORDERED:
            changed |= set_priority(body, headers)
        if counted is not None:
            counted.start(characters)
            changed |= path in _STREAMS and counted.ask_for_usage(body)
        return json.dumps(body).encode() if changed else raw, max(1, choices(body))

    async def _one_model(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer GET /v1/models/NAME, which vLLM lacks, from its list of models."""
        name, pieces = unquote(scope["path"].removeprefix(_ONE_MODEL)), []

        async def collect(message: Message) -> None:
            pieces.append(message)

        list_scope = {**scope, "path": "/v1/models", "raw_path": b"/v1/models"}
        await self.app(list_scope, receive, collect)
        status = pieces[0]["status"]
        body = b"".join(piece.get("body", b"") for piece in pieces[1:])
        if status == 200:  # noqa: PLR2004 - OK
            found = [row for row in json.loads(body)["data"] if row["id"] == name]
            missing = Refused("model", f"The model `{name}` does not exist.", 404)
            status, body = (
                (200, json.dumps(found[0]).encode()) if found else (404, missing.body(scope["path"]))
            )
        await answer(send, status, body)


def _with_length(scope: Message, length: int) -> Message:
    headers = [pair for pair in scope["headers"] if pair[0].lower() != b"content-length"]
    return {**scope, "headers": [*headers, (b"content-length", str(length).encode())]}
