"""The questions with a known answer: the requests, and what counts as wrong or broken."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from pulumi_vllm.plan.answer_checks import answer_checks

if TYPE_CHECKING:
    from types import ModuleType

CHECKS = answer_checks(tools=True, context=32_768)


@pytest.fixture
def checks(host_module: Any) -> ModuleType:
    return host_module("answer_checks")  # type: ignore[no-any-return]


def choice_of(**message: Any) -> dict[str, Any]:
    return {"message": message, "token_ids": [5, 7], "logprobs": {"content": [{"logprob": -0.1}]}}


def check_of(**keys: Any) -> dict[str, Any]:
    return {"prompt": "Q", **keys}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check["prompt"])
def test_a_request_holds_no_answer(checks: ModuleType, check: dict[str, Any]) -> None:
    body = checks.chat_body(check)
    assert not {"expected", "expected_json", "tool_arguments", "needle"} & set(body)
    assert (body["temperature"], body["logprobs"], body["return_token_ids"]) == (0, True, True)


def test_the_needle_is_in_the_middle_of_8000_tokens(checks: ModuleType) -> None:
    (needle,) = (check for check in CHECKS if "needle" in check)
    text = checks.chat_body(needle)["messages"][0]["content"]
    assert text.count(needle["needle"]) == 1
    assert 0.45 < text.index(needle["needle"]) / len(text) < 0.55
    assert 7_000 < len(text) / 3.6 < 9_000  # letters per token of English text, at most 4
    assert text.endswith(needle["prompt"])


def test_a_small_context_has_no_needle_and_an_engine_without_tools_no_call() -> None:
    kinds = {key for check in answer_checks(tools=False, context=8192) for key in check}
    assert kinds == {"prompt", "expected", "expected_json", "response_format"}


@pytest.mark.parametrize(
    ("check", "message", "reason"),
    [
        (check_of(expected="42"), {"content": "It is 42."}, None),
        (check_of(expected="42"), {"content": None, "reasoning": "so 42"}, None),
        (check_of(expected="42"), {"content": "41"}, "'Q' got '41'"),
        (check_of(expected_json={"a": 1}), {"content": ' {"a": 1}'}, None),
        (check_of(expected_json={"a": 1}), {"content": '{"a": 2}'}, "'Q' got '{\"a\": 2}'"),
        (check_of(expected_json={"a": 1}), {"content": "a is 1"}, "'Q' got 'a is 1'"),
        (check_of(tool_arguments={"a": 1}), {"tool_calls": [{"function": {"arguments": '{"a":1}'}}]}, None),
        (check_of(tool_arguments={"a": 1}), {"content": '{"a":1}'}, "'Q' got 'no tool call'"),
        (
            check_of(tool_arguments={"a": 1}),
            {"tool_calls": [{"function": {"arguments": "{"}}]},
            "'Q' got '{'",
        ),
    ],
)
def test_a_wrong_answer_may_be_a_mistake(
    checks: ModuleType, check: dict[str, Any], message: dict[str, Any], reason: str | None
) -> None:
    found = checks.verdict(check, choice_of(**message))
    assert (found and found.reason) == reason
    assert not (found and found.broken)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"token_ids": [0] * 8}, "token 0, 8 times in a row"),
        ({"token_ids": [3, *[0] * 9]}, "token 0, 8 times in a row"),
        ({"logprobs": {"content": [{"logprob": None}]}}, "probabilities that are no numbers"),
        ({"logprobs": json.loads('{"content": [{"logprob": NaN}]}')}, "probabilities that are no numbers"),
    ],
)
def test_broken_arithmetic_is_none(checks: ModuleType, change: dict[str, Any], reason: str) -> None:
    found = checks.verdict(check_of(expected="42"), choice_of(content="42") | change)
    assert (found.reason, found.broken) == (f"'Q' got {reason}", True)


def test_token_0_among_others_is_no_sign(checks: ModuleType) -> None:
    choice = choice_of(content="42") | {"token_ids": [0, 0, 0, 0, 5] * 4}
    assert checks.verdict(check_of(expected="42"), choice) is None


def test_golden_tokens_are_exact(checks: ModuleType) -> None:
    golden = check_of(sha256_12=checks.digest([5, 7]))
    assert checks.verdict(golden, choice_of(content="x")) is None
    found = checks.verdict(golden | {"sha256_12": "0" * 12}, choice_of(content="x"))
    assert found.broken
    assert found.reason.startswith(f"golden tokens {checks.digest([5, 7])}, not 000000000000, for 'Q'")
    assert checks.verdict(golden, choice_of(content="x") | {"token_ids": None}).broken
