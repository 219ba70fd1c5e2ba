"""Questions with a known answer, for models whose exact tokens are not known: damaged weights answer none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_SUM: Final = {"a": 317, "b": 25}

ANSWER_CHECKS: Final[tuple[Mapping[str, Any], ...]] = (
    {"prompt": "What is 17 + 25? Answer with the number only.", "expected": "42"},
    {"prompt": "What is 12 * 12? Answer with the number only.", "expected": "144"},
    {"prompt": "Answer with this word and nothing else: haberdashery", "expected": "haberdashery"},
    {"prompt": "Answer with this word and nothing else: 7Qx29-Lm", "expected": "7Qx29-Lm"},
    {
        "prompt": 'What is 9 * 8? Answer with JSON, the number under the key "result".',
        "expected_json": {"result": 72},
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "result",
                "schema": {
                    "type": "object",
                    "properties": {"result": {"type": "integer"}},
                    "required": ["result"],
                    "additionalProperties": False,
                },
            },
        },
    },
)
"""Two sums, two copies and an answer in JSON. A model that was trained to chat answers all of them."""

_TOOL_CALL: Final[Mapping[str, Any]] = {
    "prompt": "Add 317 and 25 with the tool.",
    "tool_arguments": _SUM,
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "add",
                "description": "Add two integers.",
                "parameters": {
                    "type": "object",
                    "properties": {name: {"type": "integer"} for name in _SUM},
                    "required": list(_SUM),
                },
            },
        }
    ],
}

_NEEDLE: Final[Mapping[str, Any]] = {
    "prompt": "What is the number of the blue locker? Answer with the number only.",
    "needle": "The number of the blue locker is 83914.",
    "expected": "83914",
    "filler_lines": 330,
}
"""330 lines of filler are about 8,000 tokens."""
_NEEDLE_CONTEXT: Final = 16_384
"""The needle is asked for from this context on, so that prompt and answer fit whatever the tokenizer makes of it."""


def answer_checks(*, tools: bool, context: int) -> tuple[Mapping[str, Any], ...]:
    """The checks that a served model can pass: with a tool parser, or with a context of so many tokens."""
    return (
        *ANSWER_CHECKS,
        *((_TOOL_CALL,) if tools else ()),
        *((_NEEDLE,) if context >= _NEEDLE_CONTEXT else ()),
    )
