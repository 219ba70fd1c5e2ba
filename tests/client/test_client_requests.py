"""Requests of today's clients: the fake engine answers them with the product's middleware, and refuses them without."""

import asyncio
import contextlib
import json
import sys
from pathlib import Path

import adapted
import attacks
import pytest
import requests
import yaml
from adapted import ADAPTED, ENGINE_MODULES, HUB, LIMITED, MODEL, PARSERS, QUESTION
from pulumi_vllm.plan import Deployment, plan

ROOT = Path(__file__).parents[2]
CASES = [*ADAPTED, *LIMITED]


@pytest.fixture(scope="module")
def alone(start):
    return start(*PARSERS, middleware=False)


def ask(engine, key, case):
    headers = {"Authorization": f"Bearer {key}"}
    return requests.post(engine.url + case.path, json=case.body, headers=headers, timeout=30)


def reasoning(answer):
    if "choices" in answer:
        return bool(answer["choices"][0]["message"]["reasoning"])
    return "thinking" in [block["type"] for block in answer["content"]]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_client_gets_an_answer_or_one_clear_reason(engine, key, case):
    answer = ask(engine, key, case)
    assert answer.status_code == case.status, answer.text
    assert case.says in answer.text
    if case.reasons is not None:
        assert reasoning(answer.json()) == case.reasons
    if case.status != 200:
        assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "case", [one for one in CASES if one.alone != one.status], ids=lambda case: case.name
)
def test_without_the_middleware_the_engine_answers_otherwise(alone, key, case):
    """As vLLM 0.32.0 does, but for the limits and addresses, which the fake engine does not have."""
    assert ask(alone, key, case).status_code == case.alone


def test_each_name_of_the_model_has_a_page(engine, key):
    def page(name):
        return requests.get(
            f"{engine.url}/models/{name}", headers={"Authorization": f"Bearer {key}"}, timeout=20
        )

    for name in (MODEL, HUB, HUB.replace("/", "%2F")):
        assert page(name).json()["id"] == name.replace("%2F", "/")
    assert page("gpt-4o").status_code == 404
    assert "`gpt-4o` does not exist" in page("gpt-4o").json()["error"]["message"]
    assert requests.get(f"{engine.url}/models/{MODEL}", timeout=20).status_code == 401


class Recorder:
    """An ASGI application that keeps what it gets."""

    def __init__(self):
        self.body = None

    async def __call__(self, scope, receive, send):
        self.body, self.headers, self.receive = (await receive())["body"], dict(scope["headers"]), receive
        self.later = await receive()


def adapt(tmp_path, monkeypatch, body, path="/v1/chat/completions", **block):
    """The body that vLLM gets, as text, or the refusal's message."""
    monkeypatch.syspath_prepend(str(ENGINE_MODULES))
    import client_requests

    stack = yaml.safe_load((ROOT / "stacks/Pulumi.local.yaml").read_text())["config"]["pulumi-vllm:server"]
    settings = plan(Deployment.parse(stack | block)).request_settings
    (tmp_path / "requests.json").write_text(json.dumps(settings))
    monkeypatch.setenv("PULUMI_VLLM_REQUESTS", str(tmp_path / "requests.json"))
    recorder, sent = Recorder(), []
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    pieces = [raw[:5], raw[5:]]
    messages = [{"type": "http.request", "body": one, "more_body": one is pieces[0]} for one in pieces]
    messages.append({"type": "http.disconnect"})

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": [(b"content-length", b"7")]}
    asyncio.run(client_requests.ClientRequests(recorder)(scope, receive, send))
    del sys.modules["client_requests"]
    if recorder.body is None:
        assert sent[0]["status"] == 400
        return json.loads(sent[1]["body"])["error"]["message"]
    assert recorder.later == {"type": "http.disconnect"}, "vLLM would not notice that a client has gone"
    if recorder.body != raw:
        assert recorder.headers[b"content-length"] == str(len(recorder.body)).encode()
    return recorder.body


def test_a_request_that_needs_no_change_arrives_byte_for_byte(tmp_path, monkeypatch):
    for raw in (
        b'{"messages": [ {"role":"user"} ],"reasoning_effort" :"high"}',
        b"no JSON",
        b"[1]",
        b"null",
        b'{"messages": [{"role": "user", "content": "\\ud83d\\ude00 1234567890123456789"}]}',
    ):
        assert adapt(tmp_path, monkeypatch, raw) == raw


DEEP = [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[" * 5_000}}]}]
KEYS = {"parameters": {"properties": {f"{number:05d}{'x' * 40}": 1 for number in range(2_000)}}}


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/v1/chat/completions", b'{"user": "\xff"}', "the JSON is not encoded in UTF-8"),
        ("/v1/chat/completions", b'{"seed": %d}' % 10**30, "a whole number has more than 63 bits"),
        ("/v1/messages", b'{"top_k": -%d}' % 10**30, "a whole number has more than 63 bits"),
        ("/v1/completions", b'{"prompt": [' + b"9" * 5_000 + b"]}", "a whole number has more than 63 bits"),
        ("/v1/responses", b'{"x":' * 50_000, "objects, lists and keys"),
        ("/v1/responses", b"[" * 5_000, "the JSON is nested too deeply"),
        ("/v1/chat/completions", {"metadata": [{}] * 9_000}, "objects, lists and keys, or signs of them in texts"),
        ("/v1/chat/completions", {"metadata": {f"{one}": 0 for one in range(9_000)}}, "objects, lists and keys"),
        ("/v1/chat/completions", {"messages": QUESTION, "tools": [KEYS]}, "characters of text are more than"),
        ("/v1/completions", {"prompt": [1] * 17_000}, "68,000 characters of text"),
        ("/v1/completions", {"metadata": [None] * 70_000}, "characters of text"),
        ("/detokenize", {"tokens": [1] * 17_000}, "68,000 characters of text"),
        ("/v1/completions", {"prompt": "x" * 4_000, "prompt_logprobs": 20}, "84,000 log-probabilities of characters"),
        ("/v1/completions", {"prompt": "x" * 4_000, "echo": True, "logprobs": "20.0"}, "84,084 log-probabilities"),
        ("/v1/chat/completions", {"messages": [{"content": "x" * 9_000}], "prompt_logprobs": 9}, "log-probabilities"),
        ("/v1/chat/completions", {"structured_outputs": True}, "structured_outputs must be an object"),
        ("/v1/completions", {"structured_outputs": [{}]}, "structured_outputs must be an object"),
        ("/v1/chat/completions", {"messages": QUESTION, "allowed_token_ids": [1]}, "needs a token of text"),
        ("/v1/chat/completions", {"messages": QUESTION, "allowed_token_ids": ["2", 999.0, True]}, "a token of text"),
        ("/v1/chat/completions", {"allowed_token_ids": [1500], "response_format": {"type": "json_object"}}, "a schema"),
        ("/v1/chat/completions", {"allowed_token_ids": [1500], "structured_outputs": {"regex": "a"}}, "and a schema"),
        ("/v1/chat/completions", {"messages": QUESTION, "repetition_penalty": 1e-320}, "must be at least 1e-38"),
        ("/v1/completions", {"prompt": "x", "repetition_penalty": "1e-46"}, "repetition_penalty must be at least"),
        ("/v1/chat/completions", {"messages": DEEP}, "the arguments of a tool are nested too deeply"),
    ],
)  # fmt: skip
def test_what_would_stop_vllm_or_end_in_its_status_500_is_a_refusal(tmp_path, monkeypatch, path, body, says):
    found = adapt(tmp_path, monkeypatch, body, path)
    assert says in (found["message"] if isinstance(found, dict) else found)


def test_what_resembles_it_is_passed_on(tmp_path, monkeypatch):
    for path, body in [
        ("/v1/chat/completions", {"messages": QUESTION, "seed": 2**63 - 1, "structured_outputs": None}),
        ("/v1/completions", {"prompt": "x" * 4_000, "prompt_logprobs": 1}),
        ("/v1/completions", {"prompt": "x" * 4_000, "echo": True}),
        ("/v1/completions", {"prompt": [1] * 2_048, "logprobs": 20}),
        ("/v1/responses", {"input": [{"role": "user", "content": [{"type": ["x"]}, {"type": {}}]}]}),
        ("/detokenize", {"tokens": [1] * 2_048}),
        ("/v1/chat/completions", {"messages": QUESTION, "allowed_token_ids": [1, 1500]}),
        ("/v1/chat/completions", {"allowed_token_ids": [1500], "response_format": {"type": "text"}}),
        ("/v1/chat/completions", {"messages": QUESTION, "allowed_token_ids": ["x"]}),
        ("/v1/chat/completions", {"messages": QUESTION, "allowed_token_ids": []}),
        ("/v1/completions", {"prompt": "x", "allowed_token_ids": [1], "repetition_penalty": 1e-38}),
        *(
            ("/v1/completions", {"prompt": "x", "repetition_penalty": value})
            for value in (0, -1, None, "x", [1])
        ),
    ]:
        assert json.loads(adapt(tmp_path, monkeypatch, body, path)) == body


def test_half_of_a_character_is_replaced(tmp_path, monkeypatch):
    """vLLM sends texts to its engine in UTF-8, and some of them ended in status 500."""
    body = {"messages": [{"role": "user", "content": "\U0001f600 \ud83d"}], "stop": "\ude00x"}
    got = json.loads(adapt(tmp_path, monkeypatch, body))
    assert got == {"messages": [{"role": "user", "content": "\U0001f600 \ufffd"}], "stop": "\ufffdx"}


def test_a_body_that_does_not_arrive_leaves_its_place_to_others(start, gateway):
    """The gateway has sent its first 32 KiB on, so it holds the only place."""
    access = {"allow": ["0.0.0.0/0"], "keys": ["team-a", "batch"]}
    block = {"concurrency": 1, "access": access}
    there = gateway(start(), {"batch": "sk-slow"}, block, request_timeout_s=1, queue_timeout_s=10)

    async def question():
        _, writer = await there.connect()
        head = "POST /detokenize HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-slow\r\nContent-Length: 99999\r\n\r\n"
        writer.write(head.encode() + b" " * 50_000)
        await writer.drain()
        await asyncio.sleep(0.3)
        body = json.dumps({"model": MODEL, "messages": QUESTION, "max_tokens": 2}).encode()
        asked = asyncio.create_task(
            there.one(attacks.request(adapted.KEY, "/v1/chat/completions", body=body))
        )
        with contextlib.suppress(ConnectionError):
            while not asked.done():  # byte by byte, so that no silence is noticed
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.1)
        writer.transport.abort()
        return await asked

    assert asyncio.run(question()).status == 200
    (slow,) = [line for line in there.log.read_bytes().splitlines() if b'"key":"batch"' in line]
    assert json.loads(slow)["status"] == 408


def test_the_mapping_can_be_changed_and_switched_off(tmp_path, monkeypatch):
    body = {"messages": QUESTION, "reasoning_effort": "low"}
    for own, effort in (({"low": "high"}, "high"), ({}, "low"), ({"medium": "none"}, "low"), (None, "none")):
        got = adapt(tmp_path, monkeypatch, body, requests={"reasoning_efforts": own})
        assert json.loads(got)["reasoning_effort"] == effort
    message = {"messages": QUESTION, "output_config": {"effort": "low"}, "thinking": {"type": "enabled"}}
    got = adapt(tmp_path, monkeypatch, message, "/v1/messages", requests={"reasoning_efforts": {}})
    assert json.loads(got) == message


def test_a_demanded_tool_that_is_not_there_stays_vllms_error(tmp_path, monkeypatch):
    for choice in ("required", {"type": "function", "function": {"name": "x"}}):
        got = json.loads(
            adapt(tmp_path, monkeypatch, {"messages": QUESTION, "tools": [], "tool_choice": choice})
        )
        assert "tools" not in got
        assert got["tool_choice"] == choice


def test_limits_follow_the_stack_file(tmp_path, monkeypatch):
    limits = {"choices": 2, "media": 0, "tools": 0, "schema_kib": 1, "characters_per_token": 40}
    for body, says in [
        ({"n": 3}, "3 choices are more than the 2"),
        ({"n": "3"}, "3 choices are more than the 2"),
        ({"n": 3.0}, "3 choices are more than the 2"),
        ({"tools": [{}]}, "1 tools are more than the 0"),
        ({"structured_outputs": {"choice": ["x" * 2000]}}, "2 KiB of schema"),
        (
            {"messages": adapted.image("data:image/png;base64,AAAA")},
            "1 images and other media are more than the 0",
        ),
        (
            {"messages": [{"role": "user", "content": "x" * 81_905}]},
            "81,921 characters of text are more than the 81,920",
        ),
    ]:
        assert says in str(adapt(tmp_path, monkeypatch, body, requests=limits))
    # Text in a place where an image's bytes would not count as text is counted where vLLM reads text.
    hidden = {"messages": [{"role": "user", "content": "data:" + "x" * 82_000}]}
    assert "characters of text" in str(adapt(tmp_path, monkeypatch, hidden, requests=limits))
    assert "nested too deeply" in str(adapt(tmp_path, monkeypatch, b"[" * 5_000))


def test_addresses_are_those_of_files_only(tmp_path, monkeypatch):
    allowed = {"media_domains": ["images.example.com"]}
    good, bad = "https://images.example.com/a.png", "https://images.example.com.evil.example/a.png"
    for address, passes in [
        (good, True), (bad, False), ("http://user@images.example.com@evil.example/", False),
        ("HTTPS://IMAGES.example.com/", True),
        ("file:///etc/passwd", False), ("ftp://images.example.com/a", False), ("http://[::1", False), ("", False),
        ("DATA:image/png;base64,AA", True),
    ]:  # fmt: skip
        for content in (
            {"type": "image_url", "image_url": {"url": address}}, {"image_url": address},
            {"type": "input_image", "image_url": address},
            {"type": "image", "source": {"type": "url", "url": address}},
            {"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": address}}]},
        ):  # fmt: skip
            body = {"messages": [{"role": "user", "content": [content]}]}
            got = adapt(tmp_path, monkeypatch, body, gateway=allowed)
            assert isinstance(got, bytes) == passes, (address, content, got)
            if not passes:
                assert "from images.example.com" in got
    # An address in a tool's arguments or schema is text.
    call = {
        "type": "tool_use",
        "name": "fetch",
        "input": {"image_url": bad, "source": {"type": "url", "url": bad}},
    }
    tool = {"name": "f", "input_schema": {"properties": {"image_url": "https://x"}}}
    body = {
        "messages": [{"role": "assistant", "content": [call]}],
        "tools": [tool],
        "metadata": {"image_url": bad},
    }
    assert isinstance(adapt(tmp_path, monkeypatch, body, "/v1/messages", gateway=allowed), bytes)
