"""`pulumi-vllm smoke` as a user runs it, against the fake engine."""

import asyncio
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pulumi_vllm.cli import main
from pulumi_vllm.client import served
from pulumi_vllm.client.endpoint import Endpoint

pytestmark = pytest.mark.usefixtures("key")
ALL = [
    "chat",
    "stream",
    "reasoning_effort none",
    "reasoning_effort high",
    "tool call",
    "structured output",
    "image",
    "long context",
]


def smoke(capsys, *words):
    code = main(["smoke", "--json", *words])
    out, err = capsys.readouterr()
    return code, {one["check"]: one for one in json.loads(out)["checks"]} if out else {}, err


def test_everything_passes_against_an_engine_with_all_parsers(engine, capsys):
    code, checks, _ = smoke(capsys, "--url", engine.url)
    assert list(checks) == ALL
    assert {name: one["sentence"] for name, one in checks.items() if one["outcome"] != "pass"} == {}
    assert code == 0
    assert "fox" in checks["chat"]["sentence"]
    assert "2,040 tokens of the limit of 2,048 were read" in checks["long context"]["sentence"]
    assert '{"city": "Paris", "sunny": true}' in checks["structured output"]["sentence"]


def test_for_people_it_is_a_line_each(engine, capsys):
    assert main(["smoke", "--url", engine.url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(ALL)
    assert all(line.startswith("pass ") for line in lines)


def test_what_the_plan_or_the_catalogue_rules_out_is_not_asked(start, capsys):
    """A dense model of the catalogue: tools, no thoughts, no images; the engine would answer all of it."""
    flags = ("--reasoning-parser", "x", "--tool-call-parser", "y", "--enable-auto-tool-choice")
    engine = start(*flags, name="qwen2.5-32b-instruct")
    code, checks, _ = smoke(capsys, "--url", engine.url)
    absent = {name for name, one in checks.items() if one["outcome"] == "not for this engine"}
    assert absent == {"reasoning_effort none", "reasoning_effort high", "image"}
    assert checks["tool call"]["outcome"] == "pass"
    assert code == 0


def test_where_nobody_knows_the_engines_own_refusal_says_so(start, capsys):
    engine = start("--language-model-only", name="unheard-of")
    code, checks, _ = smoke(capsys, "--url", engine.url)
    outcomes = {name: one["outcome"] for name, one in checks.items()}
    assert (outcomes["tool call"], outcomes["image"], code) == (
        "not for this engine",
        "not for this engine",
        0,
    )
    assert "--enable-auto-tool-choice" in checks["tool call"]["sentence"]
    assert "At most 0 image(s)" in checks["image"]["sentence"]


@pytest.mark.parametrize(
    ("flags", "sees"),
    [
        ([], True),
        (["--language-model-only"], False),
        (["--limit-mm-per-prompt", '{"image": 0}'], False),
        (["--limit-mm-per-prompt", '{"image": 2}'], True),
    ],
)
def test_whether_images_are_asked_follows_the_plans_flags(engine, flags, sees):
    endpoint = Endpoint(
        engine.url, "here", key=os.environ["VLLM_API_KEY"], plan={"flags": ["--model", "m", *flags]}
    )
    assert asyncio.run(served.look(endpoint, None)).sees is sees


def test_what_the_catalogue_promises_and_the_engine_refuses_has_failed(start, capsys):
    engine = start("--language-model-only")
    code, checks, _ = smoke(capsys, "--url", engine.url)
    failed = {name for name, one in checks.items() if one["outcome"] == "fail"}
    assert (failed, code) == ({"tool call", "image"}, 1)
    assert main(["smoke", "--url", engine.url]) == 1
    assert "2 of 8 failed: tool call, image" in capsys.readouterr().err


USAGE = {"prompt_tokens": 5, "completion_tokens": 9}


class Parrot(BaseHTTPRequestHandler):
    """A server that gives the same answer whatever is asked, thinks always, and sends a stream as one event."""

    def do_GET(self):
        self.send({"data": [{"id": "mistral-small-4-tiny", "max_model_len": 2048}]})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = {"content": "Hello.", "reasoning": "" if asked.get("reasoning_effort") == "high" else "Hm."}
        if not asked.get("stream"):
            self.send({"choices": [{"message": said, "finish_reason": "stop"}], "usage": USAGE})
            return
        events = [{"choices": [{"delta": said, "text": "Hello."}]}, {"choices": [], "usage": USAGE}]
        lines = [*map(json.dumps, events), "[DONE]"]
        self.reply("".join(f"data: {line}\n\n" for line in lines))

    def send(self, answer):
        self.reply(json.dumps(answer))

    def reply(self, text):
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


def test_an_engine_that_does_not_listen_fails_all_but_the_chat(capsys):
    with ThreadingHTTPServer(("127.0.0.1", 0), Parrot) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        code, checks, _ = smoke(capsys, "--url", f"http://127.0.0.1:{server.server_address[1]}/v1")
        server.shutdown()
        thread.join()
    why = {name: one["sentence"] for name, one in checks.items() if one["outcome"] == "fail"}
    assert (list(why), code) == (ALL[1:], 1)
    assert "in one event: that is no stream" in why["stream"]
    assert "asked not to think, it thought: 'Hm.'" in why["reasoning_effort none"]
    assert "answered without reasoning" in why["reasoning_effort high"]
    assert "no tool was called; it said 'Hello.'" in why["tool call"]
    assert "this is not JSON: 'Hello.'" in why["structured output"]
    assert "the image became no tokens" in why["image"]
    assert "2,040 tokens were sent, and 5 read" in why["long context"]
