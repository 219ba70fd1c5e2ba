"""Error responses of the API, with the bodies that the live service returns."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse


class Refusal(Exception):  # noqa: N818 (a response, not a failure)
    """An error response."""

    def __init__(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        """Keep status, body and headers."""
        super().__init__(str(body.get("message") or body.get("error")))
        self.status, self.body, self.headers = status, body, headers

    def response(self) -> JSONResponse:
        """Return the response."""
        return JSONResponse(self.body, self.status, self.headers)


def envelope(status: int, error: str, code: str, **more: Any) -> Refusal:
    """Return an error with the documented body."""
    return Refusal(status, {"error": error, "code": code, "details": {}, **more})


def invalid(message: str, **details: Any) -> Refusal:
    """Return a validation error; its details have the useful part."""
    return Refusal(400, {"error": "Bad Request", "message": message, "details": details})


def not_found(what: str) -> Refusal:
    """Return the error for an unknown id."""
    return envelope(404, f"{what} not found", "NOT_FOUND")


def rate_limited(retry_after_s: int) -> Refusal:
    """Return the error for too many requests in a window."""
    refusal = envelope(429, "Too many requests", "RATE_LIMIT_EXCEEDED", retryAfter=retry_after_s)
    refusal.headers = {"Retry-After": str(retry_after_s)}
    return refusal


def already_gone(status: str) -> Refusal:
    """Return the error for a DELETE of a machine that is gone."""
    body = {
        "error": "Cannot terminate instance",
        "message": "Instance has already been terminated.",
        "currentStatus": status,
        "canTerminate": False,
    }
    return Refusal(400, body)


def too_early(remaining_min: int, minimum_min: int) -> Refusal:
    """Return the error for a DELETE within the minimum run time; the machine keeps running and is billed."""
    body = {
        "error": "Minimum runtime not met",
        "message": f"Instance must run for at least {minimum_min} minutes. "
        f"Time remaining: {remaining_min} minutes.",
        "canTerminate": False,
        "timeRemaining": remaining_min,
        "minimumRuntime": minimum_min,
    }
    return Refusal(400, body)
