"""Turning a refusal into one sentence: every shape of error body that was seen, and what a person can do."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from pulumi_vllm.spheron.errors import CloudError, OutOfStock, RateLimited, TooEarly, Unauthorized

if TYPE_CHECKING:
    from collections.abc import Mapping

_LONGEST = 300
_KEY = re.compile(r"sai_pk_[A-Za-z0-9_-]*")
_STOCK = re.compile(
    r"not enough stock|unable to launch|sold out|out of stock|insufficient capacity|no available capacity"
    r"|no capacity|capacity exhausted|not enough resources"
    r"|offer\b.{0,80}\b(not found|unknown|unavailable|expired)|(unknown|invalid) offer"
    r"|no longer (available|offered)",
    re.IGNORECASE | re.DOTALL,
)
_MONEY = re.compile(r"\b(balance|credits?)\b", re.IGNORECASE)
_TAKEN = re.compile(r"name is not available|already exists|duplicate", re.IGNORECASE)
_EARLY = re.compile(r"minimum runtime", re.IGNORECASE)
_MINUTES = re.compile(r"(\d+)\s*min", re.IGNORECASE)


def explain(action: str, status: int, body: Any, *, secret: str, agent: str) -> CloudError:
    """The error for an answer that is no success. `body` is parsed JSON, or the text as it came."""
    payload: Mapping[str, Any] = body if isinstance(body, dict) else {}
    said = clean(said_in(body), secret)
    known: dict[str, Any] = {
        "status": status,
        "payload": payload,
        "acted": None if status >= HTTPStatus.INTERNAL_SERVER_ERROR else False,
    }
    heading = f"{action}: the cloud answered {status}" + (f": {said}" if said else "")
    if status == HTTPStatus.UNAUTHORIZED:
        return Unauthorized(f"{heading}; the API key was not accepted, check SPHERON_API_KEY", **known)
    if status == HTTPStatus.FORBIDDEN:
        hint = f"the key lacks the right, or something before the API refused this client ({agent})"
        return Unauthorized(f"{heading}; {hint}", **known)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimited(f"{heading}; too many calls, wait and run it again", **known)
    if _is_early(payload, said):
        left = _remaining_min(payload, said)
        sentence = f"{action}: the minimum run time ends in {left} min; it may be let go then"
        return TooEarly(sentence, left, **known)
    if _STOCK.search(said):
        return OutOfStock(f"{heading}; take another offer or region, or try later", **known)
    return CloudError(heading + _remedy(status, said), **known)


def said_in(body: Any) -> str:
    """What an error body says to a person, whatever its shape."""
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


def clean(words: str, secret: str) -> str:
    """One short line without the API key, even where the server repeats it."""
    masked = words.replace(secret, "***") if secret else words
    line = " ".join(_KEY.sub("sai_pk_***", masked).split()).rstrip(".; ")
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …"


def _is_early(payload: Mapping[str, Any], said: str) -> bool:
    if payload.get("canTerminate") is not False and not _EARLY.search(said):
        return False
    return bool(_EARLY.search(said)) or payload.get("timeRemaining") is not None


def _remaining_min(payload: Mapping[str, Any], said: str) -> int:
    left = payload.get("timeRemaining")
    if isinstance(left, int | float) and not isinstance(left, bool):
        return max(1, int(left))
    minutes = _MINUTES.findall(said)
    return max(1, int(minutes[-1])) if minutes else 1


def _remedy(status: int, said: str) -> str:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "; this is trouble on the cloud's side, try again in some minutes"
    if _MONEY.search(said):
        return "; add credit to the team's balance"
    if _TAKEN.search(said):
        return "; something else of the team has this name, look at the cloud's console"
    return ""
