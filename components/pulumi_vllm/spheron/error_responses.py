"""Errors from HTTP responses: every known shape of error body becomes one message with a remedy."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from pulumi_vllm.spheron.errors import (
    CloudError,
    OutOfStockError,
    RateLimitedError,
    TooEarlyError,
    UnauthorizedError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pulumi_vllm.spheron.api_address import Remedies

_MAX_LENGTH = 300
_KEY = re.compile(r"sai_pk_[A-Za-z0-9_-]*")
_OUT_OF_STOCK = re.compile(
    r"not enough stock|unable to launch|sold out|out of stock|insufficient capacity|no available capacity"
    r"|no capacity|capacity exhausted|not enough resources"
    r"|offer\b.{0,80}\b(not found|unknown|unavailable|expired)|(unknown|invalid) offer"
    r"|no longer (available|offered)",
    re.IGNORECASE | re.DOTALL,
)
_CREDIT = re.compile(r"\b(balance|credits?)\b", re.IGNORECASE)
_NAME_TAKEN = re.compile(r"name is not available|already exists|duplicate", re.IGNORECASE)
_TOO_EARLY = re.compile(r"minimum runtime", re.IGNORECASE)
_MINUTES = re.compile(r"(\d+)\s*min", re.IGNORECASE)


def error_from_response(
    action: str, status: int, body: Any, *, secret: str, agent: str, remedies: Remedies
) -> CloudError:
    """Return the error for a response that is not a success. `body` is parsed JSON, or the text as received.

    `remedies` end the messages about a refused API key and about a path that the server does not know.
    """
    payload: Mapping[str, Any] = body if isinstance(body, dict) else {}
    reason = redact(error_text(body), secret)
    details: dict[str, Any] = {
        "status": status,
        "payload": payload,
        "effect_unknown": status >= HTTPStatus.INTERNAL_SERVER_ERROR,
    }
    heading = f"{action}: the cloud answered {status}" + (f": {reason}" if reason else "")
    if status == HTTPStatus.UNAUTHORIZED:
        return UnauthorizedError(f"{heading}; the API key was not accepted, {remedies.key}", **details)
    if status == HTTPStatus.FORBIDDEN:
        hint = f"the key lacks the right, or something before the API refused this client ({agent})"
        return UnauthorizedError(f"{heading}; {hint}", **details)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimitedError(f"{heading}; too many calls, wait and run it again", **details)
    if _is_too_early(payload, reason):
        left = _remaining_min(payload, reason)
        return TooEarlyError(
            f"{action}: the minimum run time ends in {left} min; terminate it after that", left, **details
        )
    if _OUT_OF_STOCK.search(reason):
        return OutOfStockError(f"{heading}; take another offer or region, or try later", **details)
    return CloudError(heading + _remedy(status, body, reason, remedies), **details)


def error_text(body: Any) -> str:
    """Return the human-readable text of an error body, whatever its shape."""
    if not isinstance(body, dict):
        return body if isinstance(body, str) else ""
    parts = []
    for value in (body.get("error"), body.get("message"), body.get("error_message")):
        words = value.get("message") if isinstance(value, dict) else value
        if isinstance(words, list):
            words = ", ".join(str(word) for word in words)
        if isinstance(words, str) and words and words not in parts:
            parts.append(words)
    more = {name: body[name] for name in ("details", "errors") if body.get(name)}
    if more or not parts:
        rest = more or {name: value for name, value in body.items() if value not in (None, "", {}, [])}
        parts.append(json.dumps(rest, ensure_ascii=False, default=str) if rest else "")
    return ": ".join(part for part in parts if part)


def redact(words: str, secret: str) -> str:
    """Return the words as one short line without the API key, which the server may repeat."""
    masked = words.replace(secret, "***") if secret else words
    line = " ".join(_KEY.sub("sai_pk_***", masked).split()).rstrip(".; ")
    return line if len(line) <= _MAX_LENGTH else f"{line[:_MAX_LENGTH]} …"


def _is_too_early(payload: Mapping[str, Any], reason: str) -> bool:
    if payload.get("canTerminate") is not False and not _TOO_EARLY.search(reason):
        return False
    return bool(_TOO_EARLY.search(reason)) or payload.get("timeRemaining") is not None


def _remaining_min(payload: Mapping[str, Any], reason: str) -> int:
    left = payload.get("timeRemaining")
    if isinstance(left, int | float) and not isinstance(left, bool):
        return max(1, int(left))
    minutes = _MINUTES.findall(reason)
    return max(1, int(minutes[-1])) if minutes else 1


def _remedy(status: int, body: Any, reason: str, remedies: Remedies) -> str:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "; this is a problem on the cloud's side, try again in some minutes"
    if _CREDIT.search(reason):
        return "; add credit to the team's balance"
    if _NAME_TAKEN.search(reason):
        return "; the team already has something with this name, look at the cloud's console"
    if status == HTTPStatus.NOT_FOUND and not isinstance(body, dict):
        return f"; that is no answer of the API, {remedies.url}"
    return ""
