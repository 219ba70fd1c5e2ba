"""Tokens per minute and priorities of keys: in the middleware, and with the fake engine behind the real gateway."""

import asyncio
import json
import sys
import threading
import time

import pytest
import requests
import two_keys
from adapted import ENGINE_MODULES, KEY, MODEL, QUESTION

OTHER = two_keys.BATCH_KEY
LIMIT = 600  # ten tokens a second


@pytest.fixture(scope="module")
def modules():
    sys.path.insert(0, str(ENGINE_MODULES))
    import client_requests
    import key_tokens

    yield client_requests, key_tokens
    sys.path.remove(str(ENGINE_MODULES))
    del sys.modules["client_requests"], sys.modules["key_tokens"]


class Rig:
    """The middleware with a clock that the test moves, and an engine whose answer the test writes."""

    def __init__(self, modules, tmp_path, monkeypatch):
        settings = {
            "developer_role": None,
            "mistral_tokenizer": False,
            "reasoning_efforts": {},
            "thinking_effort": None,
            "media_domains": [],
            "places": 8,
        }
        settings["limits"] = dict.fromkeys(
            ("choices", "media", "tools", "schema_kib", "prompt_logprobs", "characters"), 10**6
        )
        (tmp_path / "requests.json").write_text(json.dumps(settings))
        monkeypatch.setenv("PULUMI_VLLM_REQUESTS", str(tmp_path / "requests.json"))
        self.now, self.got, self.type = 0.0, [], "application/json"
        self.answer, self.status, self.lasts_s, self.leaves = [], 200, 0.0, False
        self.middleware = modules[0].ClientRequests(self.engine)
        self.middleware.tokens = modules[1].KeyTokens(lambda: self.now)

    async def engine(self, scope, receive, send):
        self.got.append((json.loads((await receive())["body"]), dict(scope["headers"])))
        self.now += self.lasts_s
        if self.leaves:
            raise asyncio.CancelledError
        await send({"type": "http.response.start", "status": self.status,
                    "headers": [(b"content-type", self.type.encode())]})  # fmt: skip
        for piece in self.answer:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def ask(self, body, path="/v1/chat/completions", key=b"batch", limit=LIMIT, **headers):
        sent, raw = [], json.dumps(body).encode()
        pairs = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
        if limit:
            pairs += [(b"x-key-id", key), (b"x-key-tokens", str(limit).encode())]

        async def receive():
            return {"type": "http.request", "body": raw}

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": path, "headers": pairs}
        try:
            asyncio.run(self.middleware(scope, receive, send))
        except asyncio.CancelledError:
            return None
        return sent[0]["status"], dict(sent[0]["headers"]), b"".join(one.get("body", b"") for one in sent[1:])

    def left(self, key=b"batch"):
        return self.middleware.tokens.left(key, LIMIT)


@pytest.fixture
def rig(modules, tmp_path, monkeypatch):
    return Rig(modules, tmp_path, monkeypatch)


def usage(prompt, answer):
    return json.dumps({"choices": [{"text": 'x","usage":{"prompt_tokens":9}'}],
                       "usage": {"prompt_tokens": prompt, "completion_tokens": answer}}).encode()  # fmt: skip


def test_a_key_waits_until_what_it_took_has_come_back(rig):
    rig.answer = [usage(300, 500)]
    status, headers, _ = rig.ask({"messages": QUESTION})
    assert (status, rig.left()) == (200, -200)
    assert (headers[b"x-ratelimit-limit-tokens"], headers[b"x-ratelimit-remaining-tokens"]) == (
        b"600",
        b"591",
    )
    status, headers, body = rig.ask({"messages": QUESTION})
    assert (status, headers[b"retry-after"], len(rig.got)) == (429, b"21", 1)
    assert json.loads(body)["error"] == {
        "message": "This key may use 600 tokens in 60 s (tokens_per_minute). Try again in 21 s.",
        "type": "tokens", "param": None, "code": "rate_limit_exceeded",
    }  # fmt: skip
    rig.now += 21
    assert rig.ask({"messages": QUESTION})[0] == 200
    rig.now += 10_000
    assert rig.left() == LIMIT, "a key never has more than its tokens of a minute"


def test_each_key_has_its_own_tokens_and_a_key_without_a_limit_has_no_end(rig):
    rig.answer = [usage(1000, 1000)]
    assert [rig.ask({}, key=key)[0] for key in (b"batch", b"batch", b"other")] == [200, 429, 200]
    assert [rig.ask({}, limit=None)[0] for _ in range(3)] == [200] * 3


def test_a_refusal_of_the_messages_api_has_the_form_of_that_api(rig):
    rig.answer = [b'{"usage":{"input_tokens":500,"cache_read_input_tokens":90,"output_tokens":11}}']
    assert rig.ask({"messages": QUESTION}, "/v1/messages")[0] == 200
    assert rig.left() == -1
    assert json.loads(rig.ask({}, "/v1/messages")[2])["error"]["type"] == "rate_limit_error"
    for free in ("/tokenize", "/v1/messages/count_tokens"):
        assert rig.ask({}, free)[0] == 200, "these take no tokens of the model"


def test_a_prompt_counts_before_the_answer_comes_so_that_many_at_once_do_not_pass(rig):
    seen = []
    original = rig.engine

    async def engine(scope, receive, send):
        seen.append(rig.left())
        await original(scope, receive, send)

    rig.middleware.app = engine
    rig.answer = [usage(100, 1)]
    rig.ask({"messages": [{"role": "user", "content": "x" * 1996}]})
    assert (seen, rig.left()) == ([100], 499)  # 2,000 characters with the role, then as vLLM counted


def test_what_vllm_refuses_takes_nothing(rig):
    rig.status, rig.answer = 400, [b'{"error":{}}']
    assert rig.ask({"messages": [{"role": "user", "content": "x" * 40_000}]})[0] == 400
    assert rig.left() == LIMIT


@pytest.mark.parametrize(
    "own", [None, {"include_usage": False, "continuous_usage_stats": True}, {"include_usage": True}]
)
def test_a_stream_is_counted_whether_its_client_wants_the_usage_or_not(rig, own):
    rig.type = "text/event-stream; charset=utf-8"
    event, last = (
        b'data: {"choices":[{"index":0}]}\n\n',
        b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}\n\n',
    )
    rig.answer = [event, event, last + b"data: [DONE]\n\n"]
    body = {"messages": QUESTION, "stream": True} | ({"stream_options": own} if own else {})
    text = rig.ask(body)[2]
    wants = bool(own and own["include_usage"])
    assert rig.got[0][0]["stream_options"]["include_usage"] is True
    assert text == event * 2 + (last if wants else b"") + b"data: [DONE]\n\n"
    assert rig.left() == LIMIT - 10


def test_a_client_cannot_claim_that_its_answer_is_a_stream(rig):
    """vLLM reads "false" as no stream, and the count of the tokens took it for one."""
    rig.leaves, rig.lasts_s = True, 30.0
    assert rig.ask({"messages": QUESTION, "stream": "false"}) is None
    assert rig.left() == pytest.approx(LIMIT - 300, abs=10)
    rig.leaves, rig.answer = False, [usage(1, 1)]
    rig.ask({"messages": QUESTION, "stream": "true", "stream_options": {"include_usage": "false"}}, key=b"b")
    assert rig.got[-1][0]["stream_options"]["include_usage"] is True


def test_a_client_that_leaves_has_taken_what_it_got_or_its_share_of_the_time(rig):
    rig.leaves, rig.lasts_s = True, 30.0
    assert rig.ask({"messages": QUESTION}) is None
    assert rig.left() == pytest.approx(LIMIT - 300, abs=10)
    rig.leaves, rig.lasts_s, rig.type = False, 0.0, "text/event-stream"
    rig.now, rig.answer = rig.now + 60, [b'data: {"choices":[{}]}\n\n'] * 9
    rig.ask({"messages": QUESTION, "stream": True})
    assert rig.left() == pytest.approx(LIMIT - 9, abs=10)


@pytest.mark.parametrize(
    "text", [b"null", b'{"usage":null}', b'{"usage":[]}', b'"usage":', b'{"usage":{"prompt_tokens":"x"}}']
)
def test_an_answer_without_a_count_counts_by_the_time(rig, text):
    rig.answer, rig.lasts_s = [text], 6.0
    assert rig.ask({"messages": QUESTION})[0] == 200
    assert rig.left() <= LIMIT - 60 or b"prompt_tokens" in text


def test_the_priority_is_the_keys_and_not_the_clients(rig):
    rig.answer = [usage(1, 1)]
    for path, sent, header, got in [
        ("/v1/chat/completions", -5, b"1", 1), ("/v1/completions", -5, b"0", 0), ("/v1/responses", "-5", b"0", 0),
        ("/v1/completions", None, b"0", 0), ("/v1/chat/completions", 0, b"-1", -1),
    ]:  # fmt: skip
        rig.ask({"priority": sent}, path, limit=None, x_vllm_priority=header)
        assert rig.got[-1][0]["priority"] == got, path
    rig.ask({"model": "x"}, limit=None, x_vllm_priority=b"0")
    assert "priority" not in rig.got[-1][0]


def chat(there, key, **more):
    body = {"model": MODEL, "messages": QUESTION} | more
    return requests.post(f"{there.url}/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"},
                         verify=str(there.ca), timeout=60)  # fmt: skip


def limited(**batch):
    return {"access": {"allow": ["0.0.0.0/0"], "keys": ["team-a", {"name": "batch", **batch}]}}


def test_tokens_per_minute_through_the_gateway(start, gateway):
    there = gateway(start(), {"batch": OTHER}, limited(tokens_per_minute=40))
    first = chat(there, OTHER, stream=True)
    assert '"usage"' not in first.text
    found = [chat(there, OTHER) for _ in range(3)]
    assert [one.status_code for one in found][-1] == 429
    refused = found[-1]
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert refused.headers["x-request-id"]
    assert chat(there, KEY).status_code == 200


def test_a_batch_job_in_the_engine_does_not_keep_people_waiting(start, gateway):
    """Four places, of which the batch job has three: a person finds one free, however many requests the job sends."""
    engine = start("--max-num-seqs", "4", "--scheduling-policy", "priority", token_ms=20)
    there = gateway(engine, {"batch": OTHER}, limited(priority="low") | {"concurrency": 4})
    over, refused = threading.Event(), []

    def work():
        while not over.is_set():
            refused.append(chat(there, OTHER, max_tokens=18).status_code == 429)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    while not any(refused):
        time.sleep(0.01)
    times = []
    for _ in range(5):
        began = time.monotonic()
        assert chat(there, KEY, max_tokens=1).status_code == 200
        times.append(time.monotonic() - began)
    over.set()
    for thread in threads:
        thread.join()
    assert sorted(times)[2] < 18 * 0.02, times  # less than the batch job's answers take


@pytest.mark.ci
def test_a_key_that_exceeds_every_limit_lets_no_request_of_another_fail(start, gateway):
    engine = start("--max-num-seqs", "8", "--scheduling-policy", "priority", token_ms=5)
    there = gateway(engine, {"batch": OTHER}, two_keys.BLOCK)

    async def both():
        statuses = []
        batch = two_keys.Endpoint.of(there, OTHER)
        async with two_keys.other_key(batch, streams=8, pause_s=0.05) as found:
            # The other process starts late on a busy machine.
            while len(statuses) < 40 or there.log.read_bytes().count(b'"status":429') < 40:
                asked = await two_keys.person(two_keys.Endpoint.of(there, KEY))
                statuses.append(asked.status if asked.well else asked.received)
                await asyncio.sleep(0.05)
        return statuses, found

    statuses, found = asyncio.run(both())
    assert set(statuses) == {200}
    assert found[429] >= 20, found


def test_the_fake_engine_orders_by_priority_as_vllm_does(start):
    """One place: of those that wait, the lowest number comes first, and without the policy the earliest."""
    for policy, expected in (("priority", ["p", "b1", "b2"]), ("fcfs", ["b1", "b2", "p"])):
        engine = start("--max-num-seqs", "1", "--scheduling-policy", policy, token_ms=30, middleware=False)
        done, threads = [], []

        def ask(name, priority, engine=engine, done=done):
            body = {"model": MODEL, "prompt": "x", "max_tokens": 8, "priority": priority}
            headers = {"Authorization": f"Bearer {KEY}"}
            assert (
                requests.post(f"{engine.url}/completions", json=body, headers=headers, timeout=60).status_code
                == 200
            )
            done.append(name)

        def waiting(engine=engine):
            text = requests.get(engine.url.removesuffix("/v1") + "/metrics", timeout=10).text
            found = {name: float(line.rpartition(" ")[2]) for line in text.splitlines()
                     for name in ("running", "waiting") if line.startswith(f"vllm:num_requests_{name}")}  # fmt: skip
            return found["running"], found["waiting"]

        for number, (name, priority) in enumerate((("first", 1), ("b1", 1), ("b2", 1), ("p", 0))):
            threads.append(threading.Thread(target=ask, args=(name, priority)))
            threads[-1].start()
            while waiting() != (1.0, float(number)):
                time.sleep(0.005)
        for thread in threads:
            thread.join()
        assert done == ["first", *expected]
