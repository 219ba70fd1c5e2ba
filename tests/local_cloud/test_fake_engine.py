"""The fake engine as a process: its command line, its responses, and draining."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
import yaml
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from openai import OpenAI
from pulumi_vllm.plan import Deployment, answer_checks, plan
from pulumi_vllm.plan.engine_arguments import SEVERAL_WORDS
from pulumi_vllm_local import fake_engine
from pulumi_vllm_local.fake_engine import arguments, script
from pulumi_vllm_local.tiny_model import model_files, weights

SOURCE = Path(fake_engine.__file__).parent
STACKS = Path(__file__).parents[2] / "stacks"
QUESTION = [{"role": "user", "content": "Say something about the weather."}]
TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}},
}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model_files.write(folder)
    return folder


class Running:
    """The engine in its own process, installed as vllm and without site-packages, as in a guest."""

    def __init__(self, site, model, *flags, token_ms=2, **environment):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [
                "setpriv", "--pdeathsig", "KILL",  # it ends with this test, also when that is killed
                sys.executable, "-S", "-W", "error", "-m", "vllm.entrypoints.openai.api_server",
                "--model", str(model), "--host", "127.0.0.1", "--port", str(self.port),
                "--served-model-name", "tiny", "--max-model-len", "2048", *flags,
            ],
            env={"PYTHONPATH": str(site), "PATH": os.environ["PATH"], "VLLM_FAKE_START_S": "0",
                 "VLLM_FAKE_TOKEN_MS": str(token_ms), **environment},
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ready(self):
        for _ in range(200):
            try:
                if requests.get(f"{self.url}/health", timeout=2).status_code == 200:
                    return self
            except requests.ConnectionError:
                assert self.process.poll() is None, self.process.stderr.read()
                time.sleep(0.02)
        raise AssertionError("the fake engine did not get healthy")

    def chat(self, **more):
        body = {"model": "tiny", "messages": QUESTION, "max_tokens": 48, "temperature": 0} | more
        return requests.post(f"{self.url}/v1/chat/completions", json=body, timeout=20)

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        errors = self.process.communicate(timeout=10)[1]
        return self.process.returncode, errors


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(SOURCE, folder / "vllm", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def engine(site, model):
    running = Running(site, model, "--tool-call-parser", "mistral", "--enable-auto-tool-choice",
                      "--reasoning-parser", "mistral")  # fmt: skip
    yield running.ready()
    running.end()


@pytest.fixture
def start(site, model):
    started = []

    def go(*flags, folder=model, **more):
        started.append(Running(site, folder, *flags, **more))
        return started[-1]

    yield go
    for running in started:
        running.end()


def test_token_ids_match_the_tokenizer_of_the_tiny_model(model):
    words = Tekkenizer.from_file(model / "tekken.json")
    sentences = weights.Script.of(words)
    assert [token for token, _ in script.ANSWER] == list(sentences.answer)
    assert [token for token, _ in script.THOUGHT] == list(sentences.thought)
    assert [token for token, _ in script.IMAGE] == list(sentences.image)
    assert [token for token, _ in script.CALL_NAME + script.CALL_ARGUMENTS] == list(sentences.call)
    assert "".join(text for _, text in script.ANSWER) == weights.ANSWER
    assert "".join(text for _, text in script.CALL_ARGUMENTS) == weights.ARGUMENTS


@pytest.mark.parametrize(("effort", "count"), [("none", 19), ("high", 31)])
def test_golden_tokens_match_those_of_the_real_engine(engine, effort, count):
    choice = engine.chat(reasoning_effort=effort, return_token_ids=True).json()["choices"][0]
    digest = hashlib.sha256(json.dumps(choice["token_ids"]).encode()).hexdigest()[:12]
    assert digest == model_files.pinned()["golden"]["tokens"][effort]
    assert len(choice["token_ids"]) == count
    assert choice["message"]["content"] == "The quick brown fox jumps over a lazy dog."
    assert choice["message"]["reasoning"] == (None if effort == "none" else weights.THOUGHT)
    assert choice["finish_reason"] == "stop"


def test_the_openai_client_streams_reasons_and_calls_a_tool(engine):
    with OpenAI(base_url=f"{engine.url}/v1", api_key="none", max_retries=0) as client:
        stream = client.chat.completions.create(
            model="tiny", messages=QUESTION, stream=True, stream_options={"include_usage": True},
            extra_body={"reasoning_effort": "high"},
        )  # fmt: skip
        chunks = list(stream)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        thought = "".join(getattr(c.choices[0].delta, "reasoning", None) or "" for c in chunks if c.choices)
        assert (text, thought) == (weights.ANSWER, weights.THOUGHT)
        assert chunks[-1].usage.completion_tokens == 31
        called = client.chat.completions.create(model="tiny", messages=QUESTION, tools=[TOOL])
        call = called.choices[0].message.tool_calls[0]
        assert (call.function.name, call.function.arguments) == ("get_weather", '{"city":3}')
        assert called.choices[0].finish_reason == "tool_calls"
        calls = client.chat.completions.create(model="tiny", messages=QUESTION, tools=[TOOL], stream=True)
        parts = [call for chunk in calls for call in chunk.choices[0].delta.tool_calls or []]
        assert "".join(part.function.arguments for part in parts) == '{"city":3}'
        assert client.models.list().data[0].id == "tiny"


def test_images_completions_and_limits(engine):
    image = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, IMAGE]}]
    assert engine.chat(messages=image).json()["choices"][0]["message"]["content"] == "I see one picture!"
    cut = engine.chat(max_tokens=3).json()
    assert cut["choices"][0]["finish_reason"] == "length"
    assert cut["usage"]["completion_tokens"] == 3
    long = engine.chat(max_tokens=100, ignore_eos=True).json()
    assert long["usage"]["completion_tokens"] == 100
    text = requests.post(f"{engine.url}/v1/completions", json={"model": "tiny", "prompt": "x"}, timeout=5)
    assert text.json()["choices"][0]["text"] == weights.ANSWER


@pytest.mark.parametrize(
    ("changes", "status", "text"),
    [
        ({"reasoning_effort": "low"}, 400, "reasoning_effort"),
        ({"reasoning_effort": "medium"}, 400, "'none', 'high'"),
        ({"model": "other"}, 404, "does not exist"),
        ({"messages": []}, 400, "messages"),
        ({"max_tokens": 0}, 400, "at least 1"),
        ({"max_tokens": 4096}, 400, "maximum context length is 2048"),
    ],
)
def test_bad_requests_get_openai_errors(engine, changes, status, text):
    answer = engine.chat(**changes)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert text in error["message"]
    assert error["code"] == status


def test_metrics_version_and_paths_without_a_key(engine):
    engine.chat()
    text = requests.get(f"{engine.url}/metrics", timeout=5).text
    for name in (
        "vllm:num_requests_running",
        "vllm:generation_tokens_total",
        "vllm:time_to_first_token_seconds_bucket",
    ):
        assert name in text
    assert requests.get(f"{engine.url}/version", timeout=5).json() == {"version": fake_engine.__version__}
    assert (
        requests.post(f"{engine.url}/invocations", json={"messages": QUESTION}, timeout=5).status_code == 200
    )
    assert requests.get(f"{engine.url}/nothing", timeout=5).status_code == 404


def test_a_long_prompt_is_read_in_steps_that_move_only_the_kv_cache(start):
    speed = {"token_ms": 1, "prompt_tokens_per_s": 1000, "prompt_chunk": 200}
    running = start("--additional-config", json.dumps(speed)).ready()
    long = [{"role": "user", "content": "word " * 1250}]  # 1,571 tokens: 1.6 s
    ends = {}

    def ask(name, messages, tokens):
        asked = {"messages": messages, "max_tokens": tokens, "ignore_eos": True}
        assert running.chat(**asked).status_code == 200
        ends[name] = time.monotonic()

    first = threading.Thread(target=ask, args=("long", long, 8))
    first.start()
    time.sleep(0.3)
    second = threading.Thread(target=ask, args=("short", QUESTION, 500))  # 0.5 s, far below 1.3 s
    second.start()
    observed = []
    while first.is_alive():
        rows = requests.get(f"{running.url}/metrics", timeout=5).text.splitlines()
        shown = {row.partition("{")[0]: float(row.rpartition(" ")[2]) for row in rows if "{" in row}
        observed.append((shown["vllm:kv_cache_usage_perc"], shown["vllm:prompt_tokens_total"]))
        time.sleep(0.05)
    second.join()
    assert ends["long"] < ends["short"]  # it waited for its turn
    assert len({usage for usage, read in observed if read == 0}) >= 5
    rows = requests.get(f"{running.url}/metrics", timeout=5).text
    assert 'vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.0' in rows


def test_the_version_is_the_one_that_the_stack_declares(tmp_path):
    declared = tmp_path / "install.json"
    for engine, reported in (("0.33.0", "0.33.0"), ("0.26.0", "0.26.0"), ("0.32.0-cpu", "0.32.0")):
        declared.write_text(json.dumps({"engine": engine}))
        assert fake_engine.version(declared) == reported


def test_keys_protect_the_same_paths_as_in_vllm(start):
    running = start(VLLM_API_KEY="k").ready()
    assert running.chat().status_code == 401
    allowed = requests.get(f"{running.url}/v1/models", headers={"Authorization": "Bearer k"}, timeout=5)
    assert allowed.status_code == 200
    assert requests.get(f"{running.url}/metrics", timeout=5).status_code == 200


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--swap-space", "4"], "unrecognized arguments: --swap-space 4"),
        (["--dtype", "fp8"], "invalid choice: 'fp8'"),
        (["--max-num-seqs", "many"], "invalid int value: 'many'"),
        (["--limit-mm-per-prompt", "image=4"], "cannot be converted to JSON"),
        (["--gpu-memory-utilization", "1.5"], "must be in (0, 1]"),
        (["--enable-auto-tool-choice"], "requires --tool-call-parser"),
    ],
)
def test_arguments_that_vllm_refuses_are_refused(flags, text, capsys):
    with pytest.raises(SystemExit) as error:
        arguments.parse(flags)
    assert error.value.code == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("stack", sorted(STACKS.glob("Pulumi.*.yaml")), ids=lambda path: path.name)
def test_the_flags_of_every_stack_are_accepted(stack):
    block = yaml.safe_load(stack.read_text())["config"]["pulumi-vllm:server"]
    decided = plan(Deployment.parse(block))
    assert arguments.parse(list(decided.argv)).max_num_seqs * decided.engines == block["concurrency"]


def test_what_takes_several_words_takes_them_here_too():
    several = {f"--{name}" for name in SEVERAL_WORDS}
    known = [one for one in arguments.parser()._actions if several & set(one.option_strings)]
    assert len(known) >= 3
    assert {one.nargs for one in known} == {"+"}


def test_arguments_are_parsed_like_in_vllm():
    args = arguments.parse(["--max_model_len=32K", "-tp", "2", "--no-enable-prefix-caching", "--kv-cache-memory-bytes",
                            "40G", "--limit-mm-per-prompt", '{"image":4}'])  # fmt: skip
    assert args.max_model_len == 32768
    assert args.tensor_parallel_size == 2
    assert args.enable_prefix_caching is False


@pytest.mark.parametrize("missing", ["params.json", "tekken.json", "consolidated.safetensors"])
def test_a_folder_without_a_model_fails(start, model, tmp_path, missing):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    (folder / missing).unlink()
    running = start(folder=folder)
    running.process.wait(10)
    code, errors = running.end()
    assert code == 1
    assert "Engine core initialization failed" in errors


def test_truncated_weights_fail(start, model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    with (folder / "consolidated.safetensors").open("r+b") as file:
        file.truncate(12_168_648 - 4096)
    running = start(folder=folder)
    running.process.wait(10)
    assert "file not fully covered" in running.end()[1]


def test_a_chat_template_that_does_not_exist_is_refused_as_in_vllm(start):
    running = start("--chat-template", "/nowhere/template.jinja")
    running.process.wait(10)
    code, errors = running.end()
    assert code == 1
    assert (
        "The supplied chat template string (/nowhere/template.jinja) appears path-like, but doesn't exist!"
        in errors
    )
    assert start("--chat-template", "{{ messages }}").ready().chat().status_code == 200


def _stream(running, received, **more):
    body = {"model": "tiny", "messages": QUESTION, "stream": True, "ignore_eos": True, **more}
    with requests.post(f"{running.url}/v1/chat/completions", json=body, stream=True, timeout=20) as answer:
        for line in answer.iter_lines():
            if line:
                received.append(line.decode())


def _after_first(running, received, **more):
    thread = threading.Thread(target=_stream, args=(running, received), kwargs=more)
    thread.start()
    while len(received) < 3:
        time.sleep(0.005)
    running.process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    return thread


def test_a_drain_finishes_streams_and_refuses_new_requests(start):
    running, received = start("--shutdown-timeout", "20", token_ms=10).ready(), []
    thread = _after_first(running, received, max_tokens=50)
    assert running.chat().status_code == 500
    assert requests.get(f"{running.url}/health", timeout=5).status_code == 200
    thread.join(10)
    assert received[-1] == "data: [DONE]"
    assert len(received) == 52
    assert running.process.wait(10) == 0


def test_as_many_requests_at_once_as_a_stack_has_places_are_answered(start):
    """Each takes four file descriptors. Above 1,023 of them the connection ended without an answer."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, most), most))
    try:
        engine = start("--max-num-seqs", "512", token_ms=100).ready()
        with ThreadPoolExecutor(300) as clients:
            answers = list(clients.map(lambda _: engine.chat(max_tokens=10), range(300)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
    assert {one.status_code for one in answers} == {200}


def test_sigterm_is_ignored_during_the_start_and_obeyed_afterwards(start):
    running = start(VLLM_FAKE_START_S="1")
    assert "fake engine" in running.process.stderr.readline()
    running.process.send_signal(signal.SIGTERM)
    running.ready()
    # On a busy machine the main thread may not be waiting when the signal arrives. Here another thread gets the signal.
    main, other, *_ = sorted(int(one.name) for one in Path(f"/proc/{running.process.pid}/task").iterdir())
    assert ctypes.CDLL(None).tgkill(main, other, signal.SIGTERM) == 0
    assert running.process.wait(5) == 0


def test_without_a_timeout_streams_end_with_an_error_event(start):
    running, received = start(token_ms=10).ready(), []
    thread = _after_first(running, received, max_tokens=1000)
    thread.join(10)
    assert '"code": 500' in received[-2]
    assert running.process.wait(10) == 0


def _core(running) -> int:
    """Return the core, which is the only child of the server."""
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
    for _ in range(200):
        pids = children.read_text().split()
        if pids and Path(f"/proc/{pids[0]}/comm").read_text() == "VLLM::EngineCor\n":
            return int(pids[0])
        time.sleep(0.02)
    raise AssertionError("the fake engine has no core of that name")


def test_a_core_that_dies_ends_the_server_with_code_0(start):
    running, received = start(token_ms=20).ready(), []
    thread = threading.Thread(target=_stream, args=(running, received), kwargs={"max_tokens": 1000})
    thread.start()
    while len(received) < 3:
        time.sleep(0.005)
    os.kill(_core(running), signal.SIGKILL)
    thread.join(10)
    assert '"code": 500' in received[-2]
    assert requests.get(f"{running.url}/health", timeout=5).status_code == 503
    assert running.process.wait(10) == 0
    assert "Engine core proc EngineCore died unexpectedly" in running.end()[1]


def test_a_core_that_hangs_stays_healthy_and_answers_no_chat(start):
    running = start().ready()
    core = _core(running)
    os.kill(core, signal.SIGSTOP)
    with pytest.raises(requests.Timeout):
        requests.post(
            f"{running.url}/v1/chat/completions", json={"model": "tiny", "messages": QUESTION}, timeout=0.5
        )
    assert requests.get(f"{running.url}/health", timeout=5).status_code == 200
    os.kill(core, signal.SIGCONT)
    assert running.chat().status_code == 200


def test_a_core_that_dies_during_the_start_is_an_error(start):
    running = start(VLLM_FAKE_START_S="30")
    os.kill(_core(running), signal.SIGKILL)
    assert running.process.wait(10) == 1
    assert "EngineDeadError: the core process ended during its start" in running.end()[1]


def test_no_core_outlives_its_server(start):
    running = start().ready()
    core = _core(running)
    os.kill(core, signal.SIGSTOP)
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(10) == 0
    assert not Path(f"/proc/{core}").exists() or "zombie" in Path(f"/proc/{core}/status").read_text()


@pytest.mark.parametrize(
    "check", answer_checks.answer_checks(tools=True, context=32768), ids=lambda check: check["prompt"]
)
def test_the_questions_of_the_readiness_check_are_answered(start, host_module, check):
    checks = host_module("answer_checks")
    running = start("--max-model-len", "32768", "--tool-call-parser", "mistral", "--enable-auto-tool-choice")
    answered = running.ready().chat(**checks.chat_body(check)).json()
    assert checks.verdict(check, answered["choices"][0]) is None


def test_a_broken_core_gives_the_first_token_of_the_vocabulary(start, host_module):
    running = start().ready()
    os.kill(_core(running), signal.SIGUSR1)
    check = answer_checks.ANSWER_CHECKS[0] | {"prompt": "Say something."}
    checks = host_module("answer_checks")
    choice = running.chat(**checks.chat_body(check)).json()["choices"][0]
    assert checks.verdict(check, choice).reason == "'Say something.' got token 0, 8 times in a row"


def test_a_leaking_core_takes_more_memory_with_each_token(start):
    running = start().ready()
    core = _core(running)
    before = _resident_bytes(core)
    os.kill(core, signal.SIGUSR2)
    running.chat(messages=[{"role": "user", "content": "Hello"}])
    assert _resident_bytes(core) > before + 10 * 2**24


def _resident_bytes(process):
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
