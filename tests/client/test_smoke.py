"""`pulumi-vllm smoke` as a user runs it, against the fake engine."""

import asyncio
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pulumi_vllm.cli import main
from pulumi_vllm.client import served_model
from pulumi_vllm.client.checks import Checks
from pulumi_vllm.client.endpoint import Endpoint
from pulumi_vllm.client.served_model import ServedModel

pytestmark = pytest.mark.usefixtures("key")
ALL = [
    "chat",
    "stream",
    "reasoning_effort none",
    "reasoning_effort high",
    "tool call",
    "structured output",
    "image",
    "model names",
    "developer role",
    "other efforts",
    "empty tools",
    "max_completion_tokens",
    "responses",
    "messages",
    "x-api-key",
    "tokens",
    "limits",
    "limits of the key",
    "long context",
]
DIRECT = {"x-api-key", "limits of the key"}  # test_commands_through_gateway.py asks through the gateway


def smoke(capsys, *words):
    code = main(["smoke", "--json", *words])
    out, err = capsys.readouterr()
    return code, {one["check"]: one for one in json.loads(out)["checks"]} if out else {}, err


def test_everything_passes_against_an_engine_with_all_parsers(engine, capsys):
    code, checks, _ = smoke(capsys, "--url", engine.url)
    assert list(checks) == ALL
    others = {name: one["sentence"] for name, one in checks.items() if one["outcome"] != "pass"}
    assert others == {
        "x-api-key": "this server takes keys as Authorization: Bearer only",
        "limits of the key": "this server does not name the limits of a key",
    }
    assert checks["other efforts"]["sentence"].startswith(
        "minimal does not reason, low does not reason, medium reasons"
    )
    assert "this server keeps no responses" in checks["responses"]["sentence"]
    assert "20,000 choices are more than the 32" in checks["limits"]["sentence"]
    assert "fetches no files by their address" in checks["limits"]["sentence"]
    assert code == 0
    assert "fox" in checks["chat"]["sentence"]
    assert "a prompt of 2,040 tokens (limit 2,048)" in checks["long context"]["sentence"]
    assert '{"city": "Paris", "sunny": true}' in checks["structured output"]["sentence"]


def test_without_json_each_check_is_a_line(engine, capsys):
    assert main(["smoke", "--url", engine.url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(ALL)
    assert all(line.startswith("pass ") or any(name in line for name in DIRECT) for line in lines)


def test_checks_that_the_catalogue_rules_out_are_not_made(start, capsys):
    """A dense model of the catalogue has tools, but no reasoning and no images. The engine would answer all checks."""
    flags = ("--reasoning-parser", "x", "--tool-call-parser", "y", "--enable-auto-tool-choice")
    engine = start(*flags, name="qwen2.5-32b-instruct")
    code, checks, _ = smoke(capsys, "--url", engine.url)
    absent = {name for name, one in checks.items() if one["outcome"] == "not for this engine"}
    assert absent == {"reasoning_effort none", "reasoning_effort high", "image", "other efforts"} | DIRECT
    assert checks["tool call"]["outcome"] == "pass"
    assert code == 0


def test_for_an_unknown_model_the_engines_refusal_decides(start, capsys):
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
    ("flags", "accepts"),
    [
        ([], True),
        (["--language-model-only"], False),
        (["--limit-mm-per-prompt", '{"image": 0}'], False),
        (["--limit-mm-per-prompt", '{"image": 2}'], True),
    ],
)
def test_the_flags_of_the_plan_decide_whether_images_are_sent(engine, flags, accepts):
    endpoint = Endpoint(
        engine.url, "here", key=os.environ["VLLM_API_KEY"], plan={"flags": ["--model", "m", *flags]}
    )
    assert asyncio.run(served_model.find_model(endpoint, None)).accepts_images is accepts


def test_a_refusal_of_what_the_catalogue_promises_is_a_failure(start, capsys):
    engine = start("--language-model-only")
    code, checks, _ = smoke(capsys, "--url", engine.url)
    failed = {name for name, one in checks.items() if one["outcome"] == "fail"}
    assert (failed, code) == ({"tool call", "image"}, 1)
    assert main(["smoke", "--url", engine.url]) == 1
    assert "2 of 19 failed: tool call, image" in capsys.readouterr().err


USAGE = {"prompt_tokens": 5, "completion_tokens": 9}


class Parrot(BaseHTTPRequestHandler):
    """A server that always gives the same answer, always reasons, and sends a stream as one event."""

    def do_GET(self):
        self.send({"data": [{"id": "mistral-small-4-tiny", "max_model_len": 2048}]})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        message = {"content": "Hello.", "reasoning": "" if asked.get("reasoning_effort") == "high" else "Hm."}
        if not asked.get("stream"):
            self.send({"choices": [{"message": message, "finish_reason": "stop"}], "usage": USAGE})
            return
        events = [{"choices": [{"delta": message, "text": "Hello."}]}, {"choices": [], "usage": USAGE}]
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


def test_an_engine_that_ignores_requests_fails_all_but_chat(capsys):
    with ThreadingHTTPServer(("127.0.0.1", 0), Parrot) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        code, checks, _ = smoke(capsys, "--url", f"http://127.0.0.1:{server.server_address[1]}/v1")
        server.shutdown()
        thread.join()
    failures = {name: one["sentence"] for name, one in checks.items() if one["outcome"] == "fail"}
    answered = {"chat", "developer role", "other efforts", "empty tools", *DIRECT}  # it refuses nothing
    assert (list(failures), code) == ([name for name in ALL if name not in answered], 1)
    assert "in one event: the answer was not streamed" in failures["stream"]
    assert "reasoning was turned off, and the model reasoned: 'Hm.'" in failures["reasoning_effort none"]
    assert "reasoning was asked for, and the answer has none" in failures["reasoning_effort high"]
    assert "no tool was called; the answer was 'Hello.'" in failures["tool call"]
    assert "the answer is not JSON: 'Hello.'" in failures["structured output"]
    assert "2 tokens were asked for, and 9 came" in failures["max_completion_tokens"]
    assert "that this server cannot serve was answered" in failures["limits"]
    assert "the image added no tokens" in failures["image"]
    assert "2,040 tokens were sent, and the engine counted 5" in failures["long context"]


class Health(BaseHTTPRequestHandler):
    """A gateway that says how many of its engines serve."""

    def do_GET(self):
        body = json.dumps({"status": "ok", "engines": 1} if self.path == "/healthz" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("engines", "found"),
    [
        (2, ("fail", "1 of 2 engines serve; see `systemctl status 'vllm@*'` on the host")),
        (1, None),
    ],
)
async def test_several_engines_are_counted(engines, found):
    with ThreadingHTTPServer(("127.0.0.1", 0), Health) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        endpoint = Endpoint(f"http://127.0.0.1:{server.server_address[1]}/v1", "s", plan={"engines": engines})
        checks = Checks(endpoint, ServedModel("m", 4096))
        if found is None:
            assert "engines" not in checks.table
        else:
            finding = await checks.run("engines")
            assert (finding.outcome, finding.sentence) == found
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("thinks", "check", "sentence"),
    [
        ("always", "reasoning_effort none", "this model always reasons"),
        ("never", "reasoning_effort high", "this model never reasons"),
    ],
)
async def test_reasoning_is_asked_of_models_that_have_the_choice(thinks, check, sentence):
    endpoint = Endpoint("http://127.0.0.1:9/v1", "local")
    served = ServedModel("m", 4096, 512, reasons=True, thinks=thinks)
    found = await Checks(endpoint, served).run(check)
    assert (found.outcome, found.sentence) == ("not for this engine", sentence)


def test_a_model_of_a_file_has_the_abilities_of_its_plan():
    flags = ["--served-model-name", "own", "example/own", "--reasoning-parser", "qwen3"]
    plan = {"flags": flags, "thinks": "always", "vocabulary": 512}
    endpoint = Endpoint("http://127.0.0.1:9/v1", "local", plan=plan)
    found = served_model._with_abilities(endpoint, "example/own", {"max_model_len": 4096})
    assert (found.reasons, found.calls_tools, found.thinks, found.vocabulary) == (True, False, "always", 512)
    assert found.in_catalogue
    other = served_model._with_abilities(endpoint, "another", {})
    assert (other.reasons, other.in_catalogue) == (None, False)
