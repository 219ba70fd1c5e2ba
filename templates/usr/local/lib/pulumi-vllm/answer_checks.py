"""Questions with a known answer. Readiness check and canary ask them, because damaged weights produce tokens too.

A record has a `prompt` and one of: `sha256_12` (the exact tokens), `expected` (a text that the answer contains),
`expected_json` (the answer, as JSON) or `tool_arguments` (those of the call that the answer makes).
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

from reporting import printable

# A model that always thinks needs some tokens before its answer.
ANSWER_TOKENS = 512
# The most likely token of logits that are all NaN is the first of the vocabulary, again and again. No text repeats it.
FIRST_TOKENS_IN_A_ROW = 8
FILLER = (
    "Shelf {number} holds {count} boxes of paper in size A{size}, and nothing else was written down about it."
)


@dataclass(frozen=True)
class Verdict:
    """What is wrong with one answer."""

    reason: str
    broken: bool = False
    """The arithmetic of the engine is broken. Anything else may be an error of the model."""


def chat_body(check: dict[str, Any]) -> dict[str, Any]:
    """The request for one record, without the model's name."""
    prompt = str(check["prompt"])
    if check.get("filler_lines"):
        prompt = long_prompt(prompt, str(check["needle"]), int(check["filler_lines"]))
    body = {
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "return_token_ids": True,
        "max_tokens": check.get("max_tokens") or ANSWER_TOKENS,
    }
    body |= {key: check[key] for key in ("reasoning_effort", "response_format", "tools") if check.get(key)}
    return body if check.get("sha256_12") else body | {"logprobs": True}


def long_prompt(question: str, needle: str, lines: int) -> str:
    """A text of so many lines, about 24 tokens each, with one line to be found in its middle; then the question."""
    text = [
        FILLER.format(number=number, count=number * 37 % 90 + 10, size=number % 7) for number in range(lines)
    ]
    text.insert(lines // 2, needle)
    return "\n".join([*text, "", question])


def digest(token_ids: list[int]) -> str:
    """The first 12 digits of the sha256 of the token ids as JSON."""
    return hashlib.sha256(json.dumps(token_ids).encode()).hexdigest()[:12]


def verdict(check: dict[str, Any], choice: dict[str, Any]) -> Verdict | None:
    """What is wrong with the first choice of the response, or None."""
    ids = choice.get("token_ids") or []
    if broken := broken_arithmetic(ids, choice.get("logprobs") or {}):
        return Verdict(f"{check['prompt']!r} got {broken}", broken=True)
    if "sha256_12" in check:
        if not ids:
            return Verdict(
                "the engine returned no token_ids; golden tokens need an engine that returns them", True
            )
        effort = f" (reasoning_effort {check.get('reasoning_effort') or 'unset'})"
        reason = f"golden tokens {digest(ids)}, not {check['sha256_12']}, for {check['prompt']!r}{effort}"
        return None if digest(ids) == check["sha256_12"] else Verdict(reason, broken=True)
    message = choice.get("message") or {}
    if "tool_arguments" in check:
        calls = [call.get("function") or {} for call in message.get("tool_calls") or ()]
        answered = str(calls[0].get("arguments")) if calls else "no tool call"
        right = is_json(answered, check["tool_arguments"])
    elif "expected_json" in check:
        answered = str(message.get("content") or "")
        right = is_json(answered, check["expected_json"])
    else:
        answered = str(message.get("content") or message.get("reasoning") or "")
        right = check["expected"] in answered
    return None if right else Verdict(f"{check['prompt']!r} got {printable(answered)[:60]!r}")


def broken_arithmetic(ids: list[int], logprobs: dict[str, Any]) -> str | None:
    """The signs of logits that are no numbers, or None."""
    in_a_row = 0
    for token in ids:
        in_a_row = in_a_row + 1 if token == 0 else 0
        if in_a_row == FIRST_TOKENS_IN_A_ROW:
            return f"token 0, {in_a_row} times in a row"
    values = [token.get("logprob") for token in logprobs.get("content") or ()]
    if any(not isinstance(value, (int, float)) or not math.isfinite(value) for value in values):
        return "probabilities that are no numbers"
    return None


def is_json(text: str, expected: Any) -> bool:
    """Whether a text is this value as JSON."""
    try:
        found: Any = json.loads(text)
    except ValueError:
        return False
    return bool(found == expected)
