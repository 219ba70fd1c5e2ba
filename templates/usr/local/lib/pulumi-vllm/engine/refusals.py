"""Refusals of requests, each in the form of the API that was asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Message = dict[str, Any]
    Send = Callable[[Message], Awaitable[None]]

MESSAGES = ("/v1/messages", "/v1/messages/count_tokens")
"""Routes of the Messages API, whose errors have a form of their own."""
BAD_REQUEST, TOO_SLOW, MANY_REQUESTS = 400, 408, 429


class Refused(Exception):  # noqa: N818 - an answer to a client
    """A request that gets status 400, 404 (unknown model), 408 (slow body), or 429 (a key without tokens)."""

    def __init__(self, parameter: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.parameter, self.message, self.status = parameter, message, status

    def body(self, path: str) -> bytes:
        """The error in the format of the API that the path belongs to."""
        many = self.status == MANY_REQUESTS
        if path in MESSAGES:
            kind = "rate_limit_error" if many else "invalid_request_error"
            return json.dumps({"type": "error", "error": {"type": kind, "message": self.message}}).encode()
        error: Message = {"message": self.message}
        if many:
            error |= {"type": "tokens", "param": None, "code": "rate_limit_exceeded"}
        else:
            error |= {"type": "invalid_request_error", "param": self.parameter, "code": self.status}
        return json.dumps({"error": error}).encode()


async def answer(send: Send, status: int, body: bytes, retry_after_s: int = 0) -> None:
    """Send an answer in JSON."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == TOO_SLOW:
        headers.append((b"connection", b"close"))  # what is left of the body is not waited for
    if retry_after_s:
        headers.append((b"retry-after", str(retry_after_s).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
