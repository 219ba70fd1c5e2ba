"""Answers of one request and of one key: in the middleware, and with the fake engine behind the real gateway."""

import asyncio
import contextlib
import sys
import types

import pytest
import requests
import two_keys
from adapted import ENGINE_MODULES, MODEL, QUESTION

KEY = two_keys.BATCH_KEY
CHAT = {"messages": [], "tools": None, "structured_outputs": None, "_grammar_from_parser": False}
CONTROL, BANNED = {"[TOOL_CALLS]": 9, "[ARGS]": 32}, {"9": -100.0, "32": -100.0}


@pytest.fixture
def engine_module(monkeypatch):
    """Import one module of the engine's folder."""
    monkeypatch.syspath_prepend(str(ENGINE_MODULES))
    names = []

    def load(name):
        names.append(name)
        return __import__(name)

    yield load
    for name in names:
        del sys.modules[name]


def parser_of(vocab, *, supports_grammar=True):
    """vLLM's parser, as far as the repairs read it."""
    return types.SimpleNamespace(
        vocab=vocab, model_tokenizer=types.SimpleNamespace(supports_grammar=supports_grammar)
    )


def headers(limit, key=b"batch"):
    return {b"x-key-id": key, b"x-key-concurrent": str(limit).encode()}


def test_answers_are_counted_by_key_until_the_request_ends(engine_module):
    answers = engine_module("key_answers")
    counted = answers.KeyAnswers(8)
    with counted.running(headers(6), 4):
        with (
            pytest.raises(
                answers.TooManyAnswers, match=r"batch has 4 answers running; 3 more exceed the 6"
            ) as found,
            counted.running(headers(6), 3),
        ):
            raise AssertionError
        assert found.value.later
        with counted.running(headers(6), 2), counted.running(headers(6, b"b"), 6):
            pass
    with pytest.raises(ZeroDivisionError), counted.running(headers(6), 6):
        raise ZeroDivisionError
    with counted.running(headers(6), 6):
        pass
    assert not counted._running
    assert not counted._several


def test_one_answer_is_refused_only_beside_a_request_for_several(engine_module):
    """Of requests for one answer the gateway passes on no more than there are places. Others it counts as one."""
    answers = engine_module("key_answers")
    counted = answers.KeyAnswers(8)
    with contextlib.ExitStack() as running:
        for _ in range(9):  # one has ended, and vLLM has not returned from it
            running.enter_context(counted.running(headers(512), 1))
    with (
        counted.running(headers(512), 7),
        counted.running(headers(512), 0),  # a route that takes no answers
        counted.running(headers(512), 1),
        counted.running(headers(512), 0),
        counted.running(headers(512, b"b"), 1),
        pytest.raises(
            answers.TooManyAnswers, match=r"batch has 8 answers running; 1 more exceed the 8"
        ) as found,
        counted.running(headers(512), 1),
    ):
        raise AssertionError
    assert found.value.later


@pytest.mark.parametrize("n", [32, 32.0, "32", " 32 ", "32.0", "3_2"])
def test_answers_are_counted_as_vllm_reads_their_number(engine_module, n):
    """`"32.0"` was counted as one, and vLLM gave 32."""
    assert engine_module("request_limits").choices({"n": n, "prompt": ["a", "b"]}) == 64


def test_a_request_for_more_than_its_key_may_have_cannot_be_sent_again(engine_module):
    answers = engine_module("key_answers")
    counted = answers.KeyAnswers(8)
    with (
        pytest.raises(
            answers.TooManyAnswers, match=r"7 answers in one request are more than the 6 that key batch"
        ) as found,
        counted.running(headers(6), 7),
    ):
        raise AssertionError
    assert not found.value.later


def test_a_key_without_limits_has_no_more_answers_than_the_engine_computes_at_once(engine_module):
    answers = engine_module("key_answers")
    counted = answers.KeyAnswers(8)
    with counted.running(headers(512), 32):  # alone it is admitted: vLLM computes it in rounds
        with (
            pytest.raises(answers.TooManyAnswers, match=r"2 more exceed the 8 that it may have"),
            counted.running(headers(512), 2),
        ):
            raise AssertionError
        with counted.running({}, 32), counted.running({}, 32):  # past the gateway: the canary
            pass


def test_a_key_of_low_priority_is_told_how_many_answers_it_may_have(engine, gateway):
    block = {
        "access": {
            "allow": ["0.0.0.0/0"],
            "keys": ["team-a", {"name": "batch", "priority": "low", "concurrent": 4}],
        }
    }
    there = gateway(engine, {"batch": KEY}, block)

    def ask(path, **more):
        return requests.post(
            f"{there.url}{path}", json={"model": MODEL, "max_tokens": 2} | more, verify=str(there.ca), timeout=30,
            headers={"Authorization": f"Bearer {KEY}", "X-Key-Concurrent": "999", "X-Key-Id": "team-a"},
        )  # fmt: skip

    for answer in (
        ask("/completions", prompt=["a"] * 5),
        ask("/chat/completions", messages=QUESTION, n=5),
    ):
        assert answer.status_code == 400, answer.text
        assert (
            "5 answers in one request are more than the 4 that key batch may have"
            in answer.json()["error"]["message"]
        )
    assert ask("/completions", prompt=["a"] * 4).status_code == 200


async def test_answers_beyond_the_limit_are_a_429_while_others_run(start, gateway):
    engine = start("--max-num-seqs", "8", token_ms=200)
    block = {"access": {"allow": ["0.0.0.0/0"], "keys": ["team-a", {"name": "batch", "concurrent": 4}]}}
    there = gateway(engine, {"batch": KEY}, block)

    def ask(number, tokens):
        body = {"model": MODEL, "max_tokens": tokens, "prompt": ["a"] * number, "ignore_eos": True}
        return requests.post(
            f"{there.url}/completions", json=body, verify=str(there.ca), timeout=30,
            headers={"Authorization": f"Bearer {KEY}"},
        )  # fmt: skip

    long = asyncio.create_task(asyncio.to_thread(ask, 3, 10))
    await asyncio.sleep(0.6)
    refused = await asyncio.to_thread(ask, 2, 1)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
    assert refused.json()["error"]["type"] == "tokens"
    assert (await long).status_code == 200
    assert (await asyncio.to_thread(ask, 2, 1)).status_code == 200


class TestRepairs:
    """What is repaired in vLLM's server. tests/e2e/test_clients.py sees it with vLLM itself."""

    def test_a_parser_is_built_once_for_each_pair_of_objects(self, engine_module):
        repairs, built = engine_module("server_repairs"), []
        once = repairs.kept(lambda config, tokenizer: built.append((config, tokenizer)) or object())
        config, tokenizer = {"a": 1}, {"b": 2}
        assert once(config, tokenizer) is once(config, tokenizer)
        assert once({"a": 1}, tokenizer) is not once(config, tokenizer)  # equal, and another object
        assert len(built) == 2
        for number in range(1000):
            once({"number": number}, tokenizer)
        assert once(config, tokenizer) is once(config, tokenizer)

    def test_a_vllm_without_the_function_is_left_as_it_is(self, engine_module, monkeypatch):
        repairs = engine_module("server_repairs")
        repairs.apply()
        module, parts = types.ModuleType(repairs._PARSER), repairs._PARSER.split(".")
        for number in range(1, len(parts)):
            monkeypatch.setitem(sys.modules, ".".join(parts[:number]), types.ModuleType(parts[number - 1]))
        monkeypatch.setitem(sys.modules, repairs._PARSER, module)
        repairs.apply()
        module._build_drop_info = lambda *_: object()
        repairs.apply()
        config = [1]
        assert module._build_drop_info(config, config) is module._build_drop_info(config, config)

    @pytest.mark.parametrize(
        ("asked", "plain"),
        [
            ({}, True),
            ({"tools": []}, True),
            ({"response_format": types.SimpleNamespace(type="text")}, True),
            ({"response_format": types.SimpleNamespace(type="json_object")}, False),
            ({"structured_outputs": types.SimpleNamespace(choice=["yes", "no"])}, False),
            ({"tools": ["get_weather"]}, False),
        ],
    )
    def test_only_what_asks_for_a_format_or_tools_gets_a_grammar(self, engine_module, asked, plain):
        adjusted = engine_module("server_repairs").for_formats_only(lambda _, request: ("grammar", request))
        parser = parser_of(CONTROL)
        request = types.SimpleNamespace(**CHAT | {"response_format": None, "logit_bias": None} | asked)
        assert adjusted(parser, request) == (request if plain else ("grammar", request))
        assert request.logit_bias == (BANNED if plain else None)

    def test_a_plain_chat_may_not_call_a_tool_whatever_its_bias_says(self, engine_module):
        adjusted = engine_module("server_repairs").for_formats_only(lambda *_: None)
        asked = {"9": 100.0, "09": 100.0, "7": 1.0, " 32": 100.0}
        request = types.SimpleNamespace(**CHAT, logit_bias=asked)
        adjusted(parser_of(CONTROL), request)
        # vLLM's SamplingParams.from_optional reads the keys so.
        read = {int(key): bias for key, bias in request.logit_bias.items()}
        assert read == {9: -100.0, 32: -100.0, 7: 1.0}

    def test_a_request_without_messages_and_a_tokenizer_without_the_token_are_left_to_vllm(
        self, engine_module
    ):
        adjusted = engine_module("server_repairs").for_formats_only(lambda *_: "vLLM's")
        for without in ("messages", "_grammar_from_parser"):  # of 0.33.0 on /v1/responses, and of 0.26.0
            request = types.SimpleNamespace(**{key: CHAT[key] for key in CHAT if key != without})
            assert adjusted(parser_of(CONTROL), request) == "vLLM's"
        chat = types.SimpleNamespace(**CHAT)
        assert adjusted(parser_of({"[TOOL_CALLS]": 9}), chat) == "vLLM's"
        assert adjusted(parser_of(CONTROL, supports_grammar=False), chat) == "vLLM's"
        # A tokenizer of another format has the tokens too, and no such attribute.
        assert adjusted(types.SimpleNamespace(vocab=CONTROL, model_tokenizer=object()), chat) == "vLLM's"

    @pytest.mark.parametrize(
        "flag", ["--speculative-config", '--speculative-config={"method": "ngram"}', "--spec-method"]
    )
    def test_with_speculative_decoding_vllm_refuses_a_bias_and_keeps_its_grammar(
        self, engine_module, monkeypatch, flag
    ):
        module, adjust = types.ModuleType("vllm.parser.mistral"), lambda *_: None
        monkeypatch.setitem(sys.modules, "vllm", types.ModuleType("vllm"))
        monkeypatch.setitem(sys.modules, "vllm.parser", types.ModuleType("vllm.parser"))
        monkeypatch.setitem(sys.modules, "vllm.parser.mistral", module)
        module.MistralParser = type("MistralParser", (), {"adjust_request": adjust})
        monkeypatch.setattr(sys, "argv", ["api_server.py", flag, "x"])
        engine_module("server_repairs").leave_text_free()
        assert module.MistralParser.adjust_request is adjust
        monkeypatch.setattr(sys, "argv", ["api_server.py", "--specialize-active-lora"])
        sys.modules["server_repairs"].leave_text_free()
        assert module.MistralParser.adjust_request is not adjust

    @pytest.mark.parametrize(
        ("asked", "says"),
        [
            (
                {"logit_bias": dict.fromkeys(range(1025), -1.0)},
                "1,025 tokens in logit_bias are more than the 1,024",
            ),
            ({"logit_bias": dict.fromkeys(range(1024), -1.0)}, ""),
            ({"allowed_token_ids": [5] * 1025}, "1,025 tokens in allowed_token_ids"),
            ({"allowed_token_ids": [5] * 1024}, ""),
            ({"all_stop_token_ids": set(range(129)), "min_tokens": 1}, "129 tokens in stop_token_ids"),
            ({"all_stop_token_ids": set(range(128)), "min_tokens": 1}, ""),
            ({"all_stop_token_ids": set(range(129))}, ""),
            ({"bad_words_token_ids": [[5]] * 129}, "129 words in bad_words"),
            ({"bad_words_token_ids": [[5] * 9] * 114}, "1,026 tokens in bad_words"),
            ({"bad_words_token_ids": [[5] * 8] * 128}, ""),
            ({}, ""),
        ],
    )
    def test_a_list_at_which_the_engine_would_end_is_refused(self, engine_module, asked, says):
        none = dict.fromkeys(("logit_bias", "allowed_token_ids", "bad_words_token_ids"))
        sampling = types.SimpleNamespace(**none | {"min_tokens": 0, "all_stop_token_ids": {2}} | asked)
        request = types.SimpleNamespace(sampling_params=sampling)
        refusal = type(
            "Refusal",
            (ValueError,),
            {"__init__": lambda self, text, parameter: ValueError.__init__(self, text)},
        )
        process = engine_module("server_repairs").within_limits(lambda *_, **__: request, refusal)
        if says:
            with pytest.raises(refusal, match=says):
                process("id", prompt="x")
        else:
            assert process("id", prompt="x") is request

    def test_a_request_for_vectors_has_no_such_lists(self, engine_module):
        request = types.SimpleNamespace(sampling_params=None)
        assert engine_module("server_repairs").within_limits(lambda: request, ValueError)() is request

    def test_a_tokens_text_is_looked_up_once(self, engine_module):
        asked = []

        def convert(tokenizer, ids, skip_special_tokens=False):
            asked.append((tokenizer, *ids, skip_special_tokens))
            return [f"{tokenizer}{one}" for one in ids if one > 1 or not skip_special_tokens]

        converted = engine_module("server_repairs").looked_up_once(convert)
        converted("a", [5]).clear()  # the caller may change its list
        assert converted("a", [5]) == ["a5"]
        assert converted("a", [1], skip_special_tokens=True) == []
        assert converted("a", [1]) == ["a1"]
        assert asked == [("a", 5, False), ("a", 1, True), ("a", 1, False)]
        assert converted("a", [5, 6]) == ["a5", "a6"]
        assert converted("a", [5, 6]) == ["a5", "a6"]
        assert len(asked) == 5

    def test_a_tokenizer_that_gets_the_id_of_another_one_keeps_its_own_texts(self, engine_module):
        converted = engine_module("server_repairs").looked_up_once(
            lambda one, ids, _: [f"{one.name}{ids[0]}"]
        )
        for number in range(100):  # each is gone when the next one is made, which gets its address
            tokenizer = type("Tokenizer", (), {"name": f"t{number}-"})()
            assert converted(tokenizer, [5]) == [f"t{number}-5"]
            del tokenizer
