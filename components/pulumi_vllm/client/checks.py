"""Smoke checks of a served model, through its gateway. Each check returns a one-line result."""

from __future__ import annotations

import base64
import json
import struct
import time
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pulumi_vllm.client import load_generator
from pulumi_vllm.client.client_checks import ClientChecks
from pulumi_vllm.client.errors import ClientError, RequestRefused, printable
from pulumi_vllm.client.gateway_session import GatewaySession, encode
from pulumi_vllm.client.outcomes import Failed, NotSupported, excerpt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pulumi_vllm.client.endpoint import Endpoint
    from pulumi_vllm.client.outcomes import Outcome
    from pulumi_vllm.client.served_model import ServedModel

_CITIES = ["Paris", "Rome"]
_PROPERTIES = {"city": {"type": "string", "enum": _CITIES}, "sunny": {"type": "boolean"}}
_SCHEMA = {
    "type": "object",
    "properties": _PROPERTIES,
    "required": list(_PROPERTIES),
    "additionalProperties": False,
}
_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
_ANSWER_TOKENS, _REASONING_TOKENS = (
    512,
    2048,
)  # more than the answers need; _answer_limit() lowers them for small contexts
_LONG_ANSWER_TOKENS = 8
_BAD_REQUEST = 400
_IMAGE_PX = 56  # side length: two of Pixtral's merged patches of 28


@dataclass(frozen=True)
class Finding:
    """Result of one check."""

    check: str
    outcome: Outcome
    sentence: str
    seconds: float


class Checks:
    """The checks of one endpoint. `table` holds them in the order in which they run."""

    def __init__(self, endpoint: Endpoint, served: ServedModel) -> None:
        """Prepare the checks; nothing is sent yet."""
        self.endpoint, self.served = endpoint, served
        self.table: dict[str, Callable[[], Awaitable[str]]] = {
            "chat": self._chat,
            "stream": self._stream,
            "reasoning_effort none": self._no_reasoning,
            "reasoning_effort high": self._reasoning,
            "tool call": self._tool_call,
            "structured output": self._structured,
            "image": self._image,
            **ClientChecks(endpoint, served).table,
            "long context": self._long,
        }
        if int(endpoint.plan.get("engines") or 1) > 1:
            self.table = {"engines": self._engines, **self.table}

    async def run(self, name: str) -> Finding:
        """Run one check. An endpoint that stops answering fails every later check."""
        began = time.perf_counter()
        outcome: Outcome = "pass"
        try:
            sentence = await self.table[name]()
        except NotSupported as reason:
            outcome, sentence = "not for this engine", str(reason)
        except (Failed, ClientError) as error:
            outcome, sentence = "fail", str(error)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            outcome = "fail"
            sentence = f"the answer does not follow OpenAI's schema ({type(error).__name__}: {error})"
        return Finding(name, outcome, sentence, round(time.perf_counter() - began, 2))

    async def _engines(self) -> str:
        """Ask the gateway how many engines serve. A chat is answered by any one of them."""
        wanted = int(self.endpoint.plan["engines"])
        gateway = replace(self.endpoint, url=self.endpoint.url.removesuffix("/v1"))
        async with GatewaySession(gateway) as session:
            found = (await session.json("GET", "/healthz")).get("engines")
        if found != wanted:
            raise Failed(f"{found} of {wanted} engines serve; see `systemctl status 'vllm@*'` on the host")
        return f"all {wanted} engines serve"

    async def _ask(self, content: Any, **more: Any) -> dict[str, Any]:
        async with GatewaySession(self.endpoint) as gateway:
            answer: dict[str, Any] = await gateway.json(
                "POST", "/chat/completions", self._body(content, **more)
            )
            return answer

    async def _ask_if_supported(
        self, supported: bool | None, reason: str, content: Any, **more: Any
    ) -> dict[str, Any]:
        """Ask for something that not every engine supports; where that is unknown, status 400 means it does not."""
        if supported is False:
            raise NotSupported(reason)
        try:
            return await self._ask(content, **more)
        except RequestRefused as refused:
            if supported is None and refused.status == _BAD_REQUEST:
                raise NotSupported(refused.server_message) from None
            raise

    def _body(self, content: Any, **more: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": content}]
        body = {
            "model": self.served.name,
            "messages": messages,
            "max_tokens": self._answer_limit(_ANSWER_TOKENS),
            "temperature": 0,
        }
        return body | more

    def _answer_limit(self, tokens: int) -> int:
        """Limit an answer to half of the context, so that the question fits into the other half."""
        return tokens if self.served.context is None else min(tokens, self.served.context // 2)

    async def _chat(self) -> str:
        answer = await self._ask("Say something about the weather, in one sentence.")
        text = _answer_text(answer)
        tokens = answer["usage"]["completion_tokens"]
        reason = answer["choices"][0]["finish_reason"]
        if tokens < 1:
            raise Failed("the answer reports no tokens")
        return f"{excerpt(text)} ({tokens} tokens, finish reason {reason})"

    async def _stream(self) -> str:
        body = self._body("Count from one to five.", stream=True, stream_options={"include_usage": True})
        began, first, text, pieces, usage = time.perf_counter(), 0.0, "", 0, None
        async with GatewaySession(self.endpoint) as gateway:
            async for event in gateway.events("/chat/completions", encode(body)):
                usage = event.get("usage") or usage
                for choice in event["choices"]:
                    delta = choice["delta"]
                    piece = (delta.get("content") or "") + _reasoning_of(delta)
                    text, pieces = text + piece, pieces + bool(piece)
                    first = first or (time.perf_counter() - began if piece else 0.0)
        if not text.strip():
            raise Failed("the stream contained no text")
        if usage is None:
            raise Failed("the stream ended without the requested usage")
        if pieces == 1 and usage["completion_tokens"] > 2:  # noqa: PLR2004 - two tokens may arrive in one event
            raise Failed(
                f"{usage['completion_tokens']} tokens came in one event: the answer was not streamed"
            )
        return f"{pieces} pieces, the first after {first * 1000:,.0f} ms"

    async def _no_reasoning(self) -> str:
        if self.served.thinks == "always":
            raise NotSupported("this model always reasons")
        message = await self._effort("none")
        if reasoning := _reasoning_of(message):
            raise Failed(f"reasoning was turned off, and the model reasoned: {excerpt(reasoning)}")
        return f"no reasoning; {excerpt(message['content'] or '')}"

    async def _reasoning(self) -> str:
        if self.served.thinks == "never":
            raise NotSupported("this model never reasons")
        message = await self._effort("high")
        reasoning = _reasoning_of(message)
        if not reasoning and self.served.reasons is None:
            raise NotSupported("the answer has no reasoning, and it is unknown whether this model reasons")
        if not reasoning:
            raise Failed("reasoning was asked for, and the answer has none; is --reasoning-parser right?")
        return f"reasoning of {len(reasoning.split())} words: {excerpt(reasoning)}"

    async def _effort(self, effort: str) -> dict[str, Any]:
        reason = "the engine was started without --reasoning-parser"
        options = {"reasoning_effort": effort, "max_tokens": self._answer_limit(_REASONING_TOKENS)}
        answer = await self._ask_if_supported(self.served.reasons, reason, "Is 91 a prime number?", **options)
        message: dict[str, Any] = answer["choices"][0]["message"]
        if not (message.get("content") or "").strip() and answer["choices"][0]["finish_reason"] != "length":
            raise Failed("the answer has no text")
        return message

    async def _tool_call(self) -> str:
        reason = "the engine was started without --enable-auto-tool-choice"
        question = "Call the tool for the weather in Paris."
        answer = await self._ask_if_supported(self.served.calls_tools, reason, question, tools=[_TOOL])
        choice = answer["choices"][0]
        calls = choice["message"].get("tool_calls") or []
        if not calls:
            raise Failed(
                f"no tool was called; the answer was {excerpt(choice['message'].get('content') or '')}"
            )
        function = calls[0]["function"]
        if function["name"] != _TOOL["function"]["name"]:  # type: ignore[index]
            raise Failed(f"the model called {excerpt(function['name'])}, which was not offered")
        try:
            arguments = json.loads(function["arguments"])
        except ValueError:
            raise Failed(f"the arguments are not JSON: {excerpt(function['arguments'])}") from None
        if not isinstance(arguments, dict) or "city" not in arguments:
            raise Failed(f"the arguments have no city: {excerpt(function['arguments'])}")
        return (
            f"{function['name']}({printable(function['arguments'])}), finish reason {choice['finish_reason']}"
        )

    async def _structured(self) -> str:
        wanted = {
            "type": "json_schema",
            "json_schema": {"name": "weather", "schema": _SCHEMA, "strict": True},
        }
        # The grammar allows any amount of white space, which a small model may repeat; the penalty stops that.
        answer = await self._ask("The weather in Rome, as JSON.", response_format=wanted, frequency_penalty=2)
        text = _answer_text(answer)
        try:
            found = json.loads(text)
        except ValueError:
            raise Failed(f"a schema was given, and the answer is not JSON: {excerpt(text)}") from None
        fits = isinstance(found, dict) and found.keys() == _PROPERTIES.keys()
        if not fits or found["city"] not in _CITIES or not isinstance(found["sunny"], bool):
            raise Failed(f"the JSON does not follow the schema: {excerpt(text)}")
        return json.dumps(found)

    async def _image(self) -> str:
        question = "What colour is this? One word."
        image = {"type": "image_url", "image_url": {"url": _blue_square()}}
        reason = "the model, or the engine as it was started, does not accept images"
        answer = await self._ask_if_supported(
            self.served.accepts_images, reason, [{"type": "text", "text": question}, image]
        )
        without = await self._ask(question, max_tokens=1)
        more = answer["usage"]["prompt_tokens"] - without["usage"]["prompt_tokens"]
        if more < 1:
            raise Failed("the image added no tokens to the prompt: the model did not receive it")
        return f"a blue square added {more} tokens; {excerpt(_answer_text(answer))}"

    async def _long(self) -> str:
        context = self.served.context
        if context is None:
            raise NotSupported("the endpoint does not report its longest request")
        asked = context - _LONG_ANSWER_TOKENS
        plan = load_generator.Load(
            (1,), asked, _LONG_ANSWER_TOKENS, self.served.vocabulary, seed=time.time_ns()
        )
        (body,) = plan.bodies(self.served.name, 1, 1, _LONG_ANSWER_TOKENS)
        async with GatewaySession(self.endpoint) as gateway:
            sample = await load_generator.measure_completion(gateway, body)
        if sample.prompt_tokens != asked:
            raise Failed(f"{asked:,} tokens were sent, and the engine counted {sample.prompt_tokens:,}")
        return (
            f"a prompt of {asked:,} tokens (limit {context:,}), "
            f"first token after {sample.ttft:.1f} s, {sample.tokens} tokens in the answer"
        )


def _reasoning_of(message: dict[str, Any]) -> str:
    """Return the reasoning, from vLLM's field or the one of older versions."""
    return message.get("reasoning") or message.get("reasoning_content") or ""


def _answer_text(answer: dict[str, Any]) -> str:
    text: str = answer["choices"][0]["message"].get("content") or ""
    if not text.strip():
        raise Failed("the answer has no text")
    return text


def _blue_square() -> str:
    """Return a blue PNG as a data URL."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = _IMAGE_PX
    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    pixels = zlib.compress((b"\0" + b"\x20\x40\xff" * size) * size)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(png).decode()
