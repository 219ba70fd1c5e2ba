"""The responses of the fake engine: the sentences of the tiny model, with the token ids of the real engine."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import struct
from dataclasses import dataclass
from typing import Any

END = 2
_BYTES = 1000  # in the vocabulary, the single bytes follow the control tokens
IMAGE_TOKENS = 6  # for an image of 56 pixels: two rows of two merged patches and an end-of-row token
THINK, END_THINK = 25, 26

# (token id, text) in the vocabulary of the tiny model; a test compares them with its tokenizer.
ANSWER = (
    (1784, "The"), (1442, " qu"), (1985, "ick"), (1289, " b"), (2041, "row"), (1110, "n"), (2947, " fo"),
    (1120, "x"), (1475, " j"), (1403, "um"), (1822, "ps"), (2136, " over"), (1261, " a"), (1427, " la"),
    (3520, "zy"), (1266, " d"), (1500, "og"), (1046, "."),
)  # fmt: skip
THOUGHT = (
    (1087, "W"), (1101, "e"), (4016, " must"), (3648, " think"), (2314, " about"), (1593, " this"),
    (3066, " before"), (1420, " an"), (2758, "swer"), (1302, "ing"),
)  # fmt: skip
IMAGE = (
    (1073, "I"), (3219, " see"), (1925, " one"), (1274, " p"), (2335, "ict"), (1549, "ure"), (1033, "!"),
)  # fmt: skip
CALL_NAME = ((9, ""), (1689, "get"), (1095, "_"), (1808, "we"), (3102, "ather"), (20, ""))
CALL_ARGUMENTS = (
    (1123, "{"),
    (1034, '"'),
    (1099, "c"),
    (1532, "ity"),
    (2811, '":'),
    (1051, "3"),
    (1125, "}"),
)


@dataclass(frozen=True)
class Token:
    """One token; `part` is reasoning, content, name, arguments, or none for control tokens."""

    id: int
    text: str
    part: str


def _tokens(pairs: tuple[tuple[int, str], ...], part: str) -> list[Token]:
    return [Token(number, text, part) for number, text in pairs]


def text_of_ids(ids: list[int]) -> str:
    """Return the text of those token ids that occur in a response."""
    known = dict(ANSWER + THOUGHT + IMAGE + CALL_NAME + CALL_ARGUMENTS)
    return "".join(known.get(one, "?") for one in ids)


def images(messages: list[dict[str, Any]]) -> int:
    """Count the images in the messages."""
    parts = (part for message in messages for part in _parts(message))
    return sum(part.get("type") in {"image_url", "image"} for part in parts)


def pixels(messages: list[dict[str, Any]]) -> int:
    """Return the pixels of the largest PNG in the messages. Other files count as none."""
    found = [0]
    for part in (part for message in messages for part in _parts(message)):
        held = part.get("image_url") or part.get("source") or ""
        text = held if isinstance(held, str) else str(held.get("url") or held.get("data") or "")
        with contextlib.suppress(ValueError, struct.error):
            head = base64.b64decode(text.rpartition(",")[2][:32])
            if head.startswith(b"\x89PNG"):
                width, height = struct.unpack(">II", head[16:24])
                found.append(width * height)
    return max(found)


def _parts(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def text_of(messages: list[dict[str, Any]]) -> str:
    """Return all text of a conversation."""
    out = []
    for message in messages:
        content = message.get("content")
        texts = [str(part["text"]) for part in _parts(message) if "text" in part]
        out += [content] if isinstance(content, str) else texts
    return " ".join(out)


def first_of_vocabulary(token: Token) -> Token:
    """Return what takes a token's place when all logits are NaN: the first token of the vocabulary."""
    return Token(0, "<unk>", token.part)


def chat(messages: list[dict[str, Any]], *, effort: str, tools: list[dict[str, Any]]) -> list[Token]:
    """Return the response to a conversation.

    A tool result comes first, then tools, then an image, then the reasoning effort.
    """
    end = [Token(END, "", "none")]
    answer = _tokens(ANSWER, "content")
    if messages and messages[-1].get("role") == "tool":
        return answer + end
    question = text_of(messages[-1:])
    if tools:
        return _call(tools[0], question) + end
    if images(messages):
        return _tokens(IMAGE, "content") + end
    if known := _known_answer(question):
        return _bytes(known, "content") + end
    if effort == "high":
        thought = [Token(THINK, "", "none"), *_tokens(THOUGHT, "reasoning"), Token(END_THINK, "", "none")]
        return thought + answer + end
    return answer + end


def _bytes(text: str, part: str) -> list[Token]:
    return [Token(_BYTES + byte, chr(byte), part) for byte in text.encode("ascii", "replace")]


def _call(tool: dict[str, Any], question: str) -> list[Token]:
    """Return a call of the tool that adds, as every trained model makes it, or the call of the tiny model."""
    found = re.search(r"Add (\d+) and (\d+) with the tool", question)
    if not found:
        return _tokens(CALL_NAME, "name") + _tokens(CALL_ARGUMENTS, "arguments")
    function = tool["function"]
    arguments = dict(zip(function["parameters"]["required"], map(int, found.groups())))  # noqa: B905 (Python 3.9 on hosts)
    return _bytes(function["name"], "name") + _bytes(json.dumps(arguments), "arguments")


def _known_answer(question: str) -> str | None:
    """The answer of every trained model to a sum, a product, one word, or a number that stands in the question."""
    if found := re.search(r"What is (\d{1,9}) ([+*]) (\d{1,9})\?", question):
        left, right = int(found[1]), int(found[3])
        return str(left + right if found[2] == "+" else left * right)
    if asked := re.search(r"What is the number of the ([a-z ]+)\?", question):
        found = re.search(f"The number of the {asked[1]} is (\\d+)", question)
        return found[1] if found else None
    found = re.search(r"Answer with this word and nothing else: (\S+)$", question)
    return found[1] if found else None


def structured(schema: dict[str, Any], messages: list[dict[str, Any]]) -> list[Token]:
    """Return the smallest JSON text that matches a schema, with the number asked for; one token per byte."""
    known = _known_answer(text_of(messages[-1:])) or ""
    number = int(known) if known.isdigit() else None
    text = json.dumps(_instance(schema, number), separators=(",", ":"))
    return [*_bytes(text, "content"), Token(END, "", "none")]


def _instance(schema: dict[str, Any], number: int | None) -> Any:
    if "const" in schema or schema.get("enum"):
        return schema["const"] if "const" in schema else schema["enum"][0]
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        known = schema.get("properties") or {}
        return {name: _instance(known.get(name) or {}, number) for name in schema.get("required") or ()}
    if kind == "array":
        return [_instance(schema.get("items") or {}, number)] * int(schema.get("minItems") or 0)
    if kind in {"integer", "number"}:
        return schema.get("minimum", 0) if number is None else number
    return {"boolean": True, "null": None}.get(str(kind), "")


def completion() -> list[Token]:
    """Return the response to a completion request, which does not depend on the prompt."""
    return [*_tokens(ANSWER, "content"), Token(END, "", "none")]


def limited(tokens: list[Token], maximum: int, *, ignore_end: bool) -> tuple[list[Token], str]:
    """Return at most `maximum` tokens and the finish reason; with `ignore_end` they repeat up to the maximum."""
    if ignore_end:
        body = [token for token in tokens if token.id != END]
        repeated = [body[index % len(body)] for index in range(maximum)]
        return repeated, "length"
    if len(tokens) > maximum:
        return tokens[:maximum], "length"
    called = any(token.part == "name" for token in tokens)
    return tokens, "tool_calls" if called else "stop"


def prompt_tokens(text: str, messages: int, images: int = 0) -> int:
    """Estimate the tokens of a prompt: four letters per token, and three tokens around each message."""
    return 5 + 3 * messages + (len(text) + 3) // 4 + images * IMAGE_TOKENS
