"""Validation of requests as in vLLM, and responses in the format of the OpenAI API."""

from __future__ import annotations

import json
import os
import time
import uuid
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from . import script

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .engine import Engine
    from .script import Token

_ROLES = {"system", "user", "assistant", "tool"}
_NO_ROOM = (
    "This model's maximum context length is {context} tokens. However, you requested {output} output tokens "
    "and your prompt contains {prompt} input tokens, for a total of {total} tokens."
)


class Refused(Exception):  # noqa: N818 (a response, not a failure)
    """An error response."""

    def __init__(self, status: int, message: str, kind: str = "BadRequestError") -> None:
        """Keep status, message and type of the error."""
        super().__init__(message)
        self.status, self.message, self.kind = status, message, kind

    def body(self) -> dict[str, Any]:
        """Return the error body of the OpenAI API."""
        return {"error": {"message": self.message, "type": self.kind, "param": None, "code": self.status}}


def models(engine: Engine) -> dict[str, Any]:
    """Return the body of /v1/models."""
    return {
        "object": "list",
        "data": [
            {
                "id": name,
                "object": "model",
                "created": int(engine.started),
                "owned_by": "vllm",
                "root": engine.root,
                "parent": None,
                "max_model_len": engine.context,
            }
            for name in engine.names
        ],
    }


@dataclass
class Reply:
    """A response that is about to be generated."""

    engine: Engine
    model: str
    tokens: list[Token]
    reason: str
    prompt: int
    chat: bool
    with_ids: bool
    usage_in_stream: bool
    number: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def _frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        prefix = "chatcmpl" if self.chat else "cmpl"
        return {
            "id": f"{prefix}-{self.number}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }

    def usage(self) -> dict[str, Any]:
        """Return the numbers of tokens."""
        count = len(self.tokens)
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": count,
            "total_tokens": self.prompt + count,
            "prompt_tokens_details": None,
        }

    def _text(self, part: str) -> str | None:
        return "".join(token.text for token in self.tokens if token.part == part) or None

    def whole(self) -> dict[str, Any]:
        """Generate the whole response, then return it."""
        self.tokens = list(self.generate())
        choice: dict[str, Any] = {
            "index": 0,
            "logprobs": None,
            "finish_reason": self.reason,
            "stop_reason": None,
        }
        if self.chat:
            choice["message"] = self.message()
            kind = "chat.completion"
        else:
            choice["text"] = self._text("content") or ""
            kind = "text_completion"
        frame = self._frame(kind, [choice]) | {"usage": self.usage()}
        if self.with_ids:
            choice["token_ids"] = [token.id for token in self.tokens]
            frame["prompt_token_ids"] = list(range(3, 3 + self.prompt))
        return frame

    def generate(self) -> Iterator[Token]:
        """Yield the tokens at the speed of the engine."""
        return self.engine.generate(self.tokens, self.prompt, self.reason)

    def message(self) -> dict[str, Any]:
        """Return the message of a chat."""
        name = self._text("name")
        message: dict[str, Any] = {
            "role": "assistant",
            "content": self._text("content"),
            "reasoning": self._text("reasoning"),
            "refusal": None,
            "tool_calls": [],
        }
        if name:
            function = {"name": name, "arguments": self._text("arguments") or ""}
            message["tool_calls"] = [{"id": self.number[:9], "type": "function", "function": function}]
        return message

    def events(self) -> Iterator[str]:
        """Yield the response as server-sent events: one per token, then [DONE]."""
        return (f"data: {data}\n\n" for data in self._data())

    def _data(self) -> Iterator[str]:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        if self.chat:
            yield self._event(kind, {"role": "assistant", "content": ""}, None, None)
        last = len(self.tokens) - 1
        named = False
        for index, token in enumerate(self.generate()):
            delta: dict[str, Any] = {}
            if token.part in {"content", "reasoning"}:
                delta = {token.part: token.text}
            elif token.part == "arguments":
                delta = {"tool_calls": [self._call(token, first=not named)]}
                named = True
            yield self._event(kind, delta, token, self.reason if index == last else None)
        if self.usage_in_stream:
            yield json.dumps(self._frame(kind, []) | {"usage": self.usage()})
        yield "[DONE]"

    def _call(self, token: Token, *, first: bool) -> dict[str, Any]:
        function: dict[str, Any] = {"arguments": token.text}
        if not first:
            return {"index": 0, "function": function}
        function["name"] = self._text("name")
        return {"index": 0, "id": self.number[:9], "type": "function", "function": function}

    def _event(self, kind: str, delta: dict[str, Any], token: Token | None, reason: str | None) -> str:
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": reason}
        if self.chat:
            choice["delta"] = delta
        else:
            choice["text"] = delta.get("content", "")
        if self.with_ids and token is not None:
            choice["token_ids"] = [token.id]
        return json.dumps(self._frame(kind, [choice]))


def _check_as_mistral(messages: list[dict[str, Any]]) -> None:
    """Refuse what Mistral's tokenizer refuses in vLLM 0.32.0."""
    for before, item in pairwise(messages):
        if item.get("role") == "system" and before.get("role") in ("assistant", "tool"):
            raise Refused(400, f"Unexpected role 'system' after role '{before['role']}'")
    parts = [part for item in messages if isinstance(item.get("content"), list) for part in item["content"]]
    for part in parts:
        if isinstance(part, dict) and part.get("type") in ("input_text", "input_image"):
            raise Refused(400, f"'{part['type']}' is not a valid ChunkTypes")


def chat(engine: Engine, body: dict[str, Any]) -> Reply:
    """Validate a chat request and prepare its response."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(item, dict) for item in messages):
        raise Refused(400, "[{'type': 'missing', 'loc': ('body', 'messages'), 'msg': 'Field required'}]")
    roles = {item.get("role") for item in messages if "role" in item} - _ROLES
    if roles:
        raise Refused(400, f"Unknown message role: {min(map(str, roles))}")
    _check_as_mistral(messages)
    if body.get("tools") == []:
        raise Refused(
            400,
            "`tools` must not be an empty array. Either provide at least one tool or omit the field entirely.",
        )
    effort = body.get("reasoning_effort") or "none"
    if effort not in {"none", "high"}:
        message = f"reasoning_effort={effort} is not supported by Mistral models. Supported values are: "
        raise Refused(400, f"{message}['none', 'high'].")
    images = script.images(messages)
    if images and not engine.images:
        raise Refused(400, "At most 0 image(s) may be provided in one prompt.")
    most, found = int(os.environ.get("VLLM_MAX_IMAGE_PIXELS", "178956970")), script.pixels(messages)
    if found > most:
        raise Refused(400, f"Image dimensions ({found} pixels) exceed the maximum of {most} pixels.")
    tools = bool(body.get("tools")) and body.get("tool_choice") != "none"
    if tools and not engine.tools:
        raise Refused(
            400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
        )
    tokens = script.chat(messages, effort=effort, tools=body["tools"] if tools else [])
    schema = _schema(body.get("response_format"))
    if schema is not None:
        tokens = script.structured(schema, messages)
    prompt = script.prompt_tokens(script.text_of(messages), len(messages), images)
    return _reply(engine, body, tokens, prompt, is_chat=True)


def tokenized(engine: Engine, body: dict[str, Any]) -> dict[str, Any]:
    """Return the body of /tokenize."""
    count = len(str(body.get("prompt") or body.get("messages") or "")) // 4 + 1
    return {"count": count, "max_model_len": engine.context, "tokens": list(range(3, 3 + count))}


def detokenized(body: dict[str, Any]) -> dict[str, Any]:
    """Return the body of /detokenize."""
    if not isinstance(body.get("tokens"), list):
        raise Refused(400, "[{'type': 'missing', 'loc': ('body', 'tokens'), 'msg': 'Field required'}]")
    return {"prompt": script.text_of_ids(body["tokens"])}


def _schema(wanted: Any) -> dict[str, Any] | None:
    """Return the JSON schema that the request asks for, if any."""
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "json_object":
        return {"type": "object"}
    if kind != "json_schema":
        return None
    schema = (wanted.get("json_schema") or {}).get("schema")
    if not isinstance(schema, dict):
        raise Refused(
            400, "[{'type': 'missing', 'loc': ('body', 'response_format', 'json_schema', 'schema')}]"
        )
    return schema


def completion(engine: Engine, body: dict[str, Any]) -> Reply:
    """Validate a completion request and prepare its response."""
    prompt = body.get("prompt")
    if not prompt:
        raise Refused(400, "[{'type': 'missing', 'loc': ('body', 'prompt'), 'msg': 'Field required'}]")
    ids = isinstance(prompt, list) and all(isinstance(one, int) for one in prompt)
    count = len(prompt) if ids else script.prompt_tokens(str(prompt), 0)
    return _reply(engine, body, script.completion(), count, is_chat=False)


def invocation(engine: Engine, body: dict[str, Any]) -> Reply:
    """Handle a request of /invocations, which takes both chats and completions."""
    return chat(engine, body) if "messages" in body else completion(engine, body)


def _reply(engine: Engine, body: dict[str, Any], tokens: list[Token], prompt: int, *, is_chat: bool) -> Reply:
    model = str(body.get("model") or engine.names[0])
    if model not in engine.names:
        raise Refused(404, f"The model `{model}` does not exist.", "NotFoundError")
    model = engine.names[0]  # as vLLM answers, whichever name was asked for
    wanted = body.get("max_completion_tokens", body.get("max_tokens"))
    if wanted is not None and (not isinstance(wanted, int) or wanted < 1):
        raise Refused(400, f"max_tokens must be at least 1, got {wanted}.")
    room = engine.context - prompt
    if room < 1 or (wanted is not None and wanted > room):
        output = wanted or 0
        text = _NO_ROOM.format(context=engine.context, output=output, prompt=prompt, total=output + prompt)
        raise Refused(400, text)
    limited, reason = script.limited(tokens, wanted or room, ignore_end=bool(body.get("ignore_eos")))
    options = body.get("stream_options") or {}
    return Reply(
        engine=engine,
        model=model,
        tokens=limited,
        reason=reason,
        prompt=prompt,
        chat=is_chat,
        with_ids=bool(body.get("return_token_ids")),
        usage_in_stream=bool(options.get("include_usage")),
    )
