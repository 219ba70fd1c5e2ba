"""The Responses API and the Messages API, as vLLM derives them from a chat."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from . import answers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .answers import Reply
    from .engine import Engine

_STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_EFFORTS = ("low", "medium", "high", "xhigh", "max")


def response(engine: Engine, body: dict[str, Any]) -> Response:
    """Validate a request of the Responses API and prepare its response."""
    given = body.get("input")
    if not isinstance(given, (str, list)) or not given:
        raise answers.Refused(400, "[{'type': 'missing', 'loc': ('body', 'input'), 'msg': 'Field required'}]")
    if body.get("previous_response_id"):
        name = body["previous_response_id"]
        raise answers.Refused(404, f"Response with id '{name}' not found.", "invalid_request_error")
    messages = [{"role": "system", "content": body["instructions"]}] if body.get("instructions") else []
    messages += [{"role": "user", "content": given}] if isinstance(given, str) else given
    chat = _chat_of(
        body, messages, (body.get("reasoning") or {}).get("effort"), body.get("max_output_tokens")
    )
    return Response(answers.chat(engine, chat), body)


def message(engine: Engine, body: dict[str, Any]) -> Message:
    """Validate a request of the Messages API and prepare its response."""
    if not isinstance(body.get("max_tokens"), int):
        raise answers.Refused(400, "[{'type': 'missing', 'loc': 'body.max_tokens', 'msg': 'Field required'}]")
    return Message(_message_chat(engine, body))


def count_tokens(engine: Engine, body: dict[str, Any]) -> dict[str, Any]:
    """Return the body of /v1/messages/count_tokens."""
    count = _message_chat(engine, {**body, "max_tokens": 1}).prompt
    return {"input_tokens": count, "context_management": {"original_input_tokens": count}}


def _message_chat(engine: Engine, body: dict[str, Any]) -> Reply:
    effort = (body.get("output_config") or {}).get("effort")
    if effort not in (None, *_EFFORTS):
        raise answers.Refused(400, "Input should be 'low', 'medium', 'high', 'xhigh' or 'max'")
    system = [{"role": "system", "content": body["system"]}] if body.get("system") else []
    messages = body.get("messages")
    if isinstance(messages, list):
        messages = system + messages
    return answers.chat(engine, _chat_of(body, messages, effort, body.get("max_tokens")))


def _chat_of(body: dict[str, Any], messages: Any, effort: Any, limit: Any) -> dict[str, Any]:
    chat = {"model": body.get("model"), "messages": messages, "reasoning_effort": effort, "max_tokens": limit}
    return chat | ({"tools": body["tools"]} if body.get("tools") else {})


class Response:
    """A response of the Responses API that is about to be generated."""

    def __init__(self, reply: Reply, asked: dict[str, Any]) -> None:
        """Keep the chat's reply and the request."""
        self.reply, self.asked = reply, asked

    def whole(self) -> dict[str, Any]:
        """Generate the whole response, then return it."""
        text = self.reply.whole()["choices"][0]["message"]
        return self._body("completed", self._output(text), self.reply.usage())

    def _body(
        self, status: str, output: list[dict[str, Any]], usage: dict[str, Any] | None
    ) -> dict[str, Any]:
        counted = usage and {
            "input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"],
            "total_tokens": usage["total_tokens"], "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        }  # fmt: skip
        return {
            "id": f"resp_{self.reply.number}", "object": "response", "created_at": self.reply.created,
            "model": self.reply.model, "status": status, "output": output, "usage": counted,
            "instructions": self.asked.get("instructions"), "metadata": None, "previous_response_id": None,
            "parallel_tool_calls": True, "tool_choice": "auto", "tools": self.asked.get("tools") or [],
        }  # fmt: skip

    def _output(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        number, output = self.reply.number, []
        if message["reasoning"]:
            part = {"type": "reasoning_text", "text": message["reasoning"]}
            output.append({"id": f"rs_{number}", "type": "reasoning", "summary": [], "content": [part]})
        for call in message["tool_calls"]:
            function = {"type": "function_call", "call_id": call["id"], "status": "completed"} | call[
                "function"
            ]
            output.append(function)
        if message["content"]:
            output.append(
                self._item([{"type": "output_text", "text": message["content"], "annotations": []}])
            )
        return output

    def _item(self, content: list[dict[str, Any]], status: str = "completed") -> dict[str, Any]:
        name = f"msg_{self.reply.number}"
        return {"id": name, "type": "message", "role": "assistant", "status": status, "content": content}

    def events(self) -> Iterator[str]:
        """Yield the response as server-sent events. Reasoning and calls are in the last one only."""
        numbers = iter(range(1 << 30))

        def event(kind: str, **more: Any) -> str:
            data = json.dumps({"type": kind, "sequence_number": next(numbers)} | more)
            return f"event: {kind}\ndata: {data}\n\n"

        where: dict[str, Any] = {"item_id": f"msg_{self.reply.number}", "output_index": 0, "content_index": 0}
        part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": []}
        yield event("response.created", response=self._body("in_progress", [], None))
        yield event("response.output_item.added", output_index=0, item=self._item([], "in_progress"))
        yield event("response.content_part.added", **where, part=part)
        for token in self.reply.generate():
            if token.part == "content":
                yield event("response.output_text.delta", **where, delta=token.text, logprobs=[])
        message = self.reply.message()
        part["text"] = message["content"] or ""
        yield event("response.output_text.done", **where, text=part["text"], logprobs=[])
        yield event("response.content_part.done", **where, part=part)
        yield event("response.output_item.done", output_index=0, item=self._item([part]))
        done = self._body("completed", self._output(message), self.reply.usage())
        yield event("response.completed", response=done)


class Message:
    """A response of the Messages API that is about to be generated."""

    def __init__(self, reply: Reply) -> None:
        """Keep the chat's reply."""
        self.reply = reply

    def whole(self) -> dict[str, Any]:
        """Generate the whole response, then return it."""
        choice = self.reply.whole()["choices"][0]
        content = self._content(choice["message"])
        return self._head() | {"content": content, "stop_reason": _STOP_REASONS[self.reply.reason]}

    def _head(self) -> dict[str, Any]:
        usage = self.reply.usage()
        return {
            "id": f"chatcmpl-{self.reply.number}", "type": "message", "role": "assistant", "content": [],
            "model": self.reply.model, "stop_reason": None, "stop_sequence": None,
            "usage": {"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]},
        }  # fmt: skip

    def _content(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        if message["reasoning"]:
            found.append(
                {"type": "thinking", "thinking": message["reasoning"], "signature": self.reply.number}
            )
        if message["content"]:
            found.append({"type": "text", "text": message["content"]})
        for call in message["tool_calls"]:
            arguments = json.loads(call["function"]["arguments"])
            found.append(
                {"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": arguments}
            )
        return found

    def events(self) -> Iterator[str]:
        """Yield the response as server-sent events: one block after another."""

        def event(kind: str, **more: Any) -> str:
            return f"event: {kind}\ndata: {json.dumps({'type': kind} | more)}\n\n"

        head = self._head()
        head["usage"]["output_tokens"] = 0
        yield event("message_start", message=head)
        index, opened = -1, ""
        for token in self.reply.generate():
            kind = {"reasoning": "thinking", "content": "text", "arguments": "tool_use"}.get(token.part)
            if kind is None:
                continue
            if kind != opened:
                if opened:
                    yield event("content_block_stop", index=index)
                index, opened = index + 1, kind
                yield event("content_block_start", index=index, content_block=self._opening(kind))
            key = {"thinking": "thinking", "text": "text", "tool_use": "partial_json"}[kind]
            name = {"tool_use": "input_json_delta"}.get(kind, f"{kind}_delta")
            yield event("content_block_delta", index=index, delta={"type": name, key: token.text})
        if opened:
            yield event("content_block_stop", index=index)
        stopped = {"stop_reason": _STOP_REASONS[self.reply.reason], "stop_sequence": None}
        yield event("message_delta", delta=stopped, usage=self._head()["usage"])
        yield event("message_stop")

    def _opening(self, kind: str) -> dict[str, Any]:
        if kind == "tool_use":
            call = self.reply.message()["tool_calls"][0]
            return {"type": kind, "id": call["id"], "name": call["function"]["name"], "input": {}}
        return {"type": kind, kind: ""}
