"""Writes messages as Mistral's tokenizer takes them. vLLM passes them on as a client sent them (0.32.0, tried)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    Message = dict[str, Any]

_INSTRUCTIONS = ("system", "developer")
_TEXTS = ("input_text", "output_text")


class Unknown(Exception):  # noqa: N818 - an answer to a client
    """A part of a message that the tokenizer lacks and that can't be written otherwise."""


def adapt(messages: Iterable[Message], *, responses: bool) -> bool:
    """Adapt messages in place; `responses` says whether they are of the Responses API. Returns whether any changed."""
    changed, before = False, ""
    for message in messages:
        # The tokenizer takes instructions at the start and after a user, not after an answer or a tool's result.
        if message.get("role") in _INSTRUCTIONS and before == "answer":
            message["role"], changed = "user", True
        if responses:
            changed |= _join_texts(message)
        answers = message.get("role") in ("assistant", "tool") or message.get("type", "message") != "message"
        before = "answer" if answers else "question"
    return changed


def _join_texts(message: Message) -> bool:
    parts = message.get("content")
    # An answer that the client got from vLLM has an id, and vLLM reads its parts.
    if not isinstance(parts, list) or "id" in message or not all(isinstance(part, dict) for part in parts):
        return False
    kinds = {str(part.get("type")) for part in parts}
    if "input_image" in kinds:
        msg = "vLLM passes no images of the Responses API on to this model; send them to /v1/chat/completions"
        raise Unknown(msg)
    if not kinds or not kinds.issubset(_TEXTS):
        return False
    message["content"] = "\n".join(str(part.get("text", "")) for part in parts)
    return True
