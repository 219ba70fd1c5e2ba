"""The API's ways to say no, with the bodies seen live."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse


class Refusal(Exception):  # noqa: N818 (an answer, not a failure)
    """An answer other than success."""

    def __init__(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        """Keep the answer."""
        super().__init__(str(body.get("message") or body.get("error")))
        self.status, self.body, self.headers = status, body, headers

    def response(self) -> JSONResponse:
        """The answer to send."""
        return JSONResponse(self.body, self.status, self.headers)


def envelope(status: int, error: str, code: str, **more: Any) -> Refusal:
    """The documented error body."""
    return Refusal(status, {"error": error, "code": code, "details": {}, **more})


def invalid(message: str, **details: Any) -> Refusal:
    """A generic validation error; the useful part is in the details."""
    return Refusal(400, {"error": "Bad Request", "message": message, "details": details})


def not_found(what: str) -> Refusal:
    """An id that is not there."""
    return envelope(404, f"{what} not found", "NOT_FOUND")


def rate_limited(retry_after_s: int) -> Refusal:
    """Too many requests in the window."""
    refusal = envelope(429, "Too many requests", "RATE_LIMIT_EXCEEDED", retryAfter=retry_after_s)
    refusal.headers = {"Retry-After": str(retry_after_s)}
    return refusal


def already_gone(status: str) -> Refusal:
    """A DELETE of a machine that has ended."""
    body = {
        "error": "Cannot terminate instance",
        "message": "Instance has already been terminated.",
        "currentStatus": status,
        "canTerminate": False,
    }
    return Refusal(400, body)


def too_early(remaining_min: int, minimum_min: int) -> Refusal:
    """A DELETE inside the minimum run time: the machine keeps running and billing."""
    body = {
        "error": "Minimum runtime not met",
        "message": f"Instance must run for at least {minimum_min} minutes. "
        f"Time remaining: {remaining_min} minutes.",
        "canTerminate": False,
        "timeRemaining": remaining_min,
        "minimumRuntime": minimum_min,
    }
    return Refusal(400, body)
