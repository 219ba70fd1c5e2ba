"""What a served model must be able to do, asked through its gateway; each check gives a sentence."""

from __future__ import annotations

import base64
import json
import struct
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pulumi_vllm.client import load
from pulumi_vllm.client.errors import ClientError, Refused, printable
from pulumi_vllm.client.http import Connection, encode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pulumi_vllm.client.endpoint import Endpoint

Outcome = Literal["pass", "fail", "not for this engine"]

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
_ANSWER_TOKENS, _THOUGHT_TOKENS = 512, 2048  # more than these questions take; small contexts give less
_LONG_ANSWER_TOKENS = 8
_BAD_REQUEST = 400
_IMAGE_PX = 56  # one side: two of Pixtral's merged patches of 28


@dataclass(frozen=True)
class Served:
    """The model behind an endpoint. What it can do is None where neither a plan nor the catalogue says."""

    name: str
    context: int | None
    vocabulary: int | None = None
    thinks: bool | None = None
    calls_tools: bool | None = None
    sees: bool | None = None


@dataclass(frozen=True)
class Finding:
    """One check's result."""

    check: str
    outcome: Outcome
    sentence: str
    seconds: float


class _Failed(Exception):  # noqa: N818 - an outcome of a check
    """The answer is not what it should be."""


class _Absent(Exception):  # noqa: N818 - an outcome of a check
    """The engine was not started with this, or the model can't do it."""


class Checks:
    """All checks of one endpoint; `table` holds them in the order in which they are made."""

    def __init__(self, endpoint: Endpoint, served: Served) -> None:
        """Ask nothing yet."""
        self.endpoint, self.served = endpoint, served
        self.table: dict[str, Callable[[], Awaitable[str]]] = {
            "chat": self._chat,
            "stream": self._stream,
            "reasoning_effort none": self._thinks_not,
            "reasoning_effort high": self._thinks,
            "tool call": self._tool_call,
            "structured output": self._structured,
            "image": self._image,
            "long context": self._long,
        }

    async def run(self, name: str) -> Finding:
        """One check; an endpoint that has gone away in between is a failure of each check after."""
        began = time.perf_counter()
        outcome: Outcome = "pass"
        try:
            sentence = await self.table[name]()
        except _Absent as absent:
            outcome, sentence = "not for this engine", str(absent)
        except (_Failed, ClientError) as failed:
            outcome, sentence = "fail", str(failed)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as odd:
            outcome, sentence = "fail", f"the answer has not OpenAI's shape ({type(odd).__name__}: {odd})"
        return Finding(name, outcome, sentence, round(time.perf_counter() - began, 2))

    async def _ask(self, content: Any, **more: Any) -> dict[str, Any]:
        async with Connection(self.endpoint) as gateway:
            answer: dict[str, Any] = await gateway.json(
                "POST", "/chat/completions", self._body(content, **more)
            )
            return answer

    async def _ask_for(self, can: bool | None, without: str, content: Any, **more: Any) -> dict[str, Any]:
        """Ask for something that not every engine does; where nobody knows, its own refusal says so."""
        if can is False:
            raise _Absent(without)
        try:
            return await self._ask(content, **more)
        except Refused as refused:
            if can is None and refused.status == _BAD_REQUEST:
                raise _Absent(refused.said) from None
            raise

    def _body(self, content: Any, **more: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": content}]
        asked = {
            "model": self.served.name,
            "messages": messages,
            "max_tokens": self._room(_ANSWER_TOKENS),
            "temperature": 0,
        }
        return asked | more

    def _room(self, tokens: int) -> int:
        """At most so many tokens for an answer, and half of the context for its question."""
        return tokens if self.served.context is None else min(tokens, self.served.context // 2)

    async def _chat(self) -> str:
        answer = await self._ask("Say something about the weather, in one sentence.")
        said = _said(answer)
        tokens = answer["usage"]["completion_tokens"]
        reason = answer["choices"][0]["finish_reason"]
        if tokens < 1:
            raise _Failed("the answer counts no tokens")
        return f"{_cut(said)} ({tokens} tokens, finish reason {reason})"

    async def _stream(self) -> str:
        body = self._body("Count from one to five.", stream=True, stream_options={"include_usage": True})
        began, first, text, pieces, usage = time.perf_counter(), 0.0, "", 0, None
        async with Connection(self.endpoint) as gateway:
            async for event in gateway.events("/chat/completions", encode(body)):
                usage = event.get("usage") or usage
                for choice in event["choices"]:
                    delta = choice["delta"]
                    piece = (delta.get("content") or "") + _thought(delta)
                    text, pieces = text + piece, pieces + bool(piece)
                    first = first or (time.perf_counter() - began if piece else 0.0)
        if not text.strip():
            raise _Failed("the stream carried no text")
        if usage is None:
            raise _Failed("the stream ended without the usage that was asked for")
        if pieces == 1 and usage["completion_tokens"] > 2:  # noqa: PLR2004 - two may come as one
            raise _Failed(f"{usage['completion_tokens']} tokens came in one event: that is no stream")
        return f"{pieces} pieces, the first after {first * 1000:,.0f} ms"

    async def _thinks_not(self) -> str:
        message = await self._effort("none")
        if thought := _thought(message):
            raise _Failed(f"asked not to think, it thought: {_cut(thought)}")
        return f"no reasoning; {_cut(message['content'] or '')}"

    async def _thinks(self) -> str:
        message = await self._effort("high")
        thought = _thought(message)
        if not thought and self.served.thinks is None:
            raise _Absent("no reasoning came back, and nothing says that this model thinks")
        if not thought:
            raise _Failed("asked to think, it answered without reasoning; is --reasoning-parser right?")
        return f"reasoning of {len(thought.split())} words: {_cut(thought)}"

    async def _effort(self, effort: str) -> dict[str, Any]:
        without = "the engine has no --reasoning-parser"
        asked = {"reasoning_effort": effort, "max_tokens": self._room(_THOUGHT_TOKENS)}
        answer = await self._ask_for(self.served.thinks, without, "Is 91 a prime number?", **asked)
        message: dict[str, Any] = answer["choices"][0]["message"]
        if not (message.get("content") or "").strip() and answer["choices"][0]["finish_reason"] != "length":
            raise _Failed("the answer holds no text")
        return message

    async def _tool_call(self) -> str:
        without, question = (
            "the engine has no --enable-auto-tool-choice",
            "Call the tool for the weather in Paris.",
        )
        answer = await self._ask_for(self.served.calls_tools, without, question, tools=[_TOOL])
        choice = answer["choices"][0]
        calls = choice["message"].get("tool_calls") or []
        if not calls:
            raise _Failed(f"no tool was called; it said {_cut(choice['message'].get('content') or '')}")
        function = calls[0]["function"]
        if function["name"] != _TOOL["function"]["name"]:  # type: ignore[index]
            raise _Failed(f"it called {_cut(function['name'])}, which was not offered")
        try:
            arguments = json.loads(function["arguments"])
        except ValueError:
            raise _Failed(f"the arguments are not JSON: {_cut(function['arguments'])}") from None
        if not isinstance(arguments, dict) or "city" not in arguments:
            raise _Failed(f"the arguments name no city: {_cut(function['arguments'])}")
        return (
            f"{function['name']}({printable(function['arguments'])}), finish reason {choice['finish_reason']}"
        )

    async def _structured(self) -> str:
        wanted = {
            "type": "json_schema",
            "json_schema": {"name": "weather", "schema": _SCHEMA, "strict": True},
        }
        # The engine's grammar lets any amount of space in, and a small model lingers there: the penalty ends it.
        answer = await self._ask("The weather in Rome, as JSON.", response_format=wanted, frequency_penalty=2)
        said = _said(answer)
        try:
            found = json.loads(said)
        except ValueError:
            raise _Failed(f"a schema was asked for, and this is not JSON: {_cut(said)}") from None
        fits = isinstance(found, dict) and found.keys() == _PROPERTIES.keys()
        if not fits or found["city"] not in _CITIES or not isinstance(found["sunny"], bool):
            raise _Failed(f"the JSON does not follow the schema: {_cut(said)}")
        return json.dumps(found)

    async def _image(self) -> str:
        question = "What colour is this? One word."
        image = {"type": "image_url", "image_url": {"url": _blue_square()}}
        blind = "the model, or the engine as it was started, takes no images"
        answer = await self._ask_for(self.served.sees, blind, [{"type": "text", "text": question}, image])
        without = await self._ask(question, max_tokens=1)
        more = answer["usage"]["prompt_tokens"] - without["usage"]["prompt_tokens"]
        if more < 1:
            raise _Failed("the image became no tokens: the model did not get it")
        return f"a blue square became {more} tokens; {_cut(_said(answer))}"

    async def _long(self) -> str:
        context = self.served.context
        if context is None:
            raise _Absent("the endpoint does not say how long a request may be")
        asked = context - _LONG_ANSWER_TOKENS
        plan = load.Load((1,), asked, _LONG_ANSWER_TOKENS, self.served.vocabulary, seed=time.time_ns())
        (body,) = plan.bodies(self.served.name, 1, 1, _LONG_ANSWER_TOKENS)
        async with Connection(self.endpoint) as gateway:
            sample = await load.one(gateway, body)
        if sample.prompt_tokens != asked:
            raise _Failed(f"{asked:,} tokens were sent, and {sample.prompt_tokens:,} read")
        return (
            f"{asked:,} tokens of the limit of {context:,} were read, "
            f"first token after {sample.ttft:.1f} s, {sample.tokens} answered"
        )


def _thought(message: dict[str, Any]) -> str:
    """What it thought: vLLM's field, or the one of older versions."""
    return message.get("reasoning") or message.get("reasoning_content") or ""


def _said(answer: dict[str, Any]) -> str:
    said: str = answer["choices"][0]["message"].get("content") or ""
    if not said.strip():
        raise _Failed("the answer holds no text")
    return said


def _cut(text: str) -> str:
    """The beginning of what a model said, quoted, on one line."""
    line = printable(text)
    return repr(line if len(line) <= 60 else line[:57] + "...")  # noqa: PLR2004 - one line of a table


def _blue_square() -> str:
    """A PNG as a data URL."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = _IMAGE_PX
    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    pixels = zlib.compress((b"\0" + b"\x20\x40\xff" * size) * size)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(png).decode()
