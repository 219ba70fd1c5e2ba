"""What today's clients send, and what a served model answers: the same for the fake engine and for vLLM."""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pulumi_vllm.client import checks

ENGINE_MODULES = Path(__file__).parents[2] / "templates/usr/local/lib/pulumi-vllm/engine"
KEY = "sk-of-the-tests"
MODEL, HUB = "mistral-small-4-tiny", "pulumi-vllm/mistral-small-4-tiny"
PARSERS = ("--reasoning-parser", "mistral", "--tool-call-parser", "mistral", "--enable-auto-tool-choice")
QUESTION = [{"role": "user", "content": "Say something about the weather."}]
CHAT, RESPONSES, MESSAGES = "/chat/completions", "/responses", "/messages"
PIXEL = base64.b64encode(b"no image, which only vLLM would notice").decode()


@dataclass(frozen=True)
class Case:
    """One request. `alone` is the status that the engine gives without the middleware."""

    name: str
    path: str
    body: dict[str, Any]
    status: int
    alone: int
    says: str = ""
    reasons: bool | None = None
    headers: dict[str, str] = field(default_factory=dict)


def chat(
    name: str, status: int, alone: int, says: str = "", reasons: bool | None = None, **more: Any
) -> Case:
    body = {"model": MODEL, "messages": QUESTION, "max_tokens": 40, "temperature": 0} | more
    return Case(name, CHAT, body, status, alone, says, reasons)


def response(name: str, status: int, alone: int, says: str = "", **more: Any) -> Case:
    return Case(
        name,
        RESPONSES,
        {"model": MODEL, "input": "Hello", "max_output_tokens": 40} | more,
        status,
        alone,
        says,
    )


def message(
    name: str, status: int, alone: int, says: str = "", reasons: bool | None = None, **more: Any
) -> Case:
    body = {"model": MODEL, "messages": QUESTION, "max_tokens": 60, "temperature": 0} | more
    return Case(name, MESSAGES, body, status, alone, says, reasons)


def image(address: str) -> list[dict[str, Any]]:
    part = {"type": "image_url", "image_url": {"url": address}}
    return [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, part]}]


def black_image(width: int, height: int) -> str:
    """A PNG in base64."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    lines = zlib.compress(bytes(1 + width // 8) * height, 9)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")
    return base64.b64encode(png).decode()


def vast_image() -> str:
    """An image of 200 million pixels, of 25 kB, as a data URL."""
    return f"data:image/png;base64,{black_image(20_000, 10_000)}"


DEVELOPER = [{"role": "developer", "content": "Be short."}, *QUESTION]
ANSWERED = [*QUESTION, {"role": "assistant", "content": "It rains."}]
WITH_TOOL = [
    *QUESTION,
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "call_0123456789", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
    {"role": "tool", "tool_call_id": "call_0123456789", "content": "rain"},
]  # fmt: skip
PARTS = [
    {
        "role": "user",
        "content": [{"type": "input_text", "text": "Say"}, {"type": "input_text", "text": "it."}],
    }
]
OWN_ANSWER = {"role": "assistant", "content": [{"type": "output_text", "text": "It rains."}]}
BLUE = {"type": "input_image", "detail": "auto", "image_url": checks._blue_square()}
ADAPTED = [
    chat("developer after an answer", 200, 400, messages=[*ANSWERED, *DEVELOPER]),
    chat("system after an answer", 200, 400, messages=[*ANSWERED, {"role": "system", "content": "x"}, *QUESTION]),
    chat("system after a tool", 200, 400, messages=[*WITH_TOOL, {"role": "system", "content": "x"}]),
    response("response, parts", 200, 400, input=PARTS),
    response("response, parts of a conversation", 200, 400, input=[*PARTS, OWN_ANSWER, *PARTS]),
    response("response, developer later", 200, 400, input=[*PARTS, {"role": "assistant", "content": "x"}, *DEVELOPER]),
    response("response, image", 400, 400, "send them to /v1/chat/completions",
             input=[{"role": "user", "content": [*PARTS[0]["content"], BLUE]}]),
    chat("developer", 200, 400, messages=DEVELOPER),
    *(chat(f"effort {one}", 200, 400, reasons=False, reasoning_effort=one) for one in ("minimal", "low")),
    *(chat(f"effort {one}", 200, 400, reasons=True, reasoning_effort=one) for one in ("medium", "xhigh", "max")),
    chat("effort none", 200, 200, reasons=False, reasoning_effort="none"),
    chat("effort high", 200, 200, reasons=True, reasoning_effort="high"),
    chat("no tools", 200, 400, tools=[]),
    chat("no tools, auto", 200, 400, tools=[], tool_choice="auto"),
    chat("hub name", 200, 200, model=HUB),
    chat("another model", 404, 404, "gpt-4o", model="gpt-4o"),
    chat("max_completion_tokens", 200, 200, max_completion_tokens=4),
    response("response", 200, 200),
    response("response, developer", 200, 400, input=DEVELOPER),
    response("response, effort", 200, 400, reasoning={"effort": "low"}),
    response("response, store", 200, 200, store=True),
    response("response, previous", 400, 404, "previous_response_id: this server keeps no responses",
             previous_response_id="resp_1"),
    response("response, conversation", 400, 200, "send the whole conversation", conversation="conv_1"),
    message("message", 200, 200),
    message("message, no effort for this", 200, 400, reasons=False, output_config={"effort": "low"}),
    message("message, effort", 200, 400, reasons=True, output_config={"effort": "xhigh"}),
    message("message, thinking", 200, 200, reasons=True, thinking={"type": "enabled", "budget_tokens": 30}),
    message("message, no thinking", 200, 200, reasons=False, thinking={"type": "disabled"}),
]  # fmt: skip
LIMITED = [
    chat("choices", 400, 200, "33 choices are more than the 32", n=33, temperature=1, max_tokens=1),
    Case("prompts", "/completions", {"model": MODEL, "prompt": ["x"] * 17, "n": 2, "max_tokens": 1}, 400, 200,
         "34 choices are more than the 32"),
    chat("tools", 400, 200, "257 tools are more than the 256", tools=[
        {"type": "function", "function": {"name": f"f{one}", "parameters": {"type": "object"}}} for one in range(257)
    ], max_tokens=1),
    chat("schema", 400, 200, "KiB of schema", max_tokens=1, response_format={"type": "json_schema", "json_schema": {
        "name": "x", "schema": {"type": "object", "description": "x" * 2**17}}}),
    chat("text", 400, 400, "characters of text", messages=[{"role": "user", "content": "word " * 13_200}]),
    chat("address", 400, 200, "send a data: URL instead", messages=image("http://127.0.0.1:9/x.png")),
    chat("metadata service", 400, 200, "send a data: URL", messages=image("http://169.254.169.254/latest")),
    chat("file", 400, 200, "send a data: URL", messages=image("file:///etc/hostname")),
    response("response, address", 400, 400, "send them to /v1/chat/completions", input=[{"role": "user", "content": [
        {"type": "input_image", "image_url": "http://127.0.0.1:9/x.png"}]}]),
    message("message, address", 400, 200, "send a data: URL", messages=[{"role": "user", "content": [
        {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1:9/x.png"}}]}]),
    chat("pixels", 400, 400, "exceed the maximum of", messages=image(vast_image())),
    chat("no message", 400, 400, "messages is empty", messages=[]),
    message("message, no message", 400, 400, "messages is empty", messages=[]),
    response("response, no input", 400, 400, "input is empty", input=[]),
    Case("no prompt", "/completions", {"model": MODEL, "prompt": [], "max_tokens": 1}, 400, 400, "prompt is empty"),
    chat("files", 400, 200, "65 images", messages=[{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}] * 65}]),
]  # fmt: skip
