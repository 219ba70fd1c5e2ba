"""Changes requests of today's clients that this model's tokenizer or vLLM refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mistral_messages
from refusals import MESSAGES, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    Message = dict[str, Any]

CHATS = ("/v1/chat/completions", "/tokenize")


def adapt(path: str, body: Message, settings: Message) -> bool:
    """Change what this model's tokenizer or vLLM refuses. Returns whether anything was changed."""
    responses = path == "/v1/responses"
    changed = _adapt_messages(body.get("input" if responses else "messages"), settings, responses=responses)
    if path in CHATS and body.get("tools") == []:
        del body["tools"]
        if body.get("tool_choice") in (None, "auto", "none"):
            body.pop("tool_choice", None)
        changed = True
    if path in MESSAGES:
        return _adapt_thinking(body, settings) or changed
    holder: Any = body.get("reasoning") if responses else body
    key = "effort" if responses else "reasoning_effort"
    if isinstance(holder, dict) and isinstance(holder.get(key), str):
        known = settings["reasoning_efforts"].get(holder[key])
        if known is not None:
            holder[key], changed = known, True
    return changed


def _adapt_messages(value: Any, settings: Message, *, responses: bool) -> bool:
    messages, changed, role = list(_dictionaries(value)), False, settings["developer_role"]
    if settings["mistral_tokenizer"]:
        try:
            changed = mistral_messages.adapt(messages, responses=responses)
        except mistral_messages.Unknown as unknown:
            raise Refused("input", str(unknown)) from None
    for message in messages:
        if message.get("role") == "developer" and role:
            message["role"], changed = role, True
    return changed


def _adapt_thinking(body: Message, settings: Message) -> bool:
    """Map the effort of the Messages API, which knows no effort `none`: there it is absent."""
    efforts = settings["reasoning_efforts"]
    options = body.get("output_config") or {}
    if not efforts or not isinstance(options, dict):
        return False
    thinking = body.get("thinking")
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    asked = options.get("effort")
    effort = efforts.get(asked, asked) if isinstance(asked, str) else None
    if kind == "enabled" and effort is None:
        effort = settings["thinking_effort"]
    if kind == "disabled":
        effort = None
    others = {key: value for key, value in options.items() if key != "effort"}
    wanted = others if effort in (None, "none") else {**others, "effort": effort}
    changed = wanted != options or "thinking" in body
    # vLLM 0.26.0 ignores `thinking`, later versions ask for a tokenizer that can end it after a budget.
    body.pop("thinking", None)
    body.pop("output_config", None)
    if wanted:
        body["output_config"] = wanted
    return changed


def set_priority(body: Message, headers: dict[bytes, bytes]) -> bool:
    """Give a request the priority of its key, whatever the client wrote. Returns whether that changed it."""
    wanted = int(headers.get(b"x-vllm-priority", b"0"))
    if body.get("priority", 0) == wanted:
        return False
    body["priority"] = wanted
    return True


def _dictionaries(value: Any) -> Iterator[Message]:
    return (one for one in value if isinstance(one, dict)) if isinstance(value, list) else iter(())
