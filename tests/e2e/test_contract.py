"""The main contract, with the fake and the real engine, on a share and on a block volume."""

import base64
import json
import struct
import threading
import time
import zlib

import openai
import pytest
from harness import REGIONS, chat_long, client

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "integer"}}},
        },
    }
]
EXPORTS = {"endpoint", "model", "ca_certificate", "api_key", "usd_per_hour", "evidence", "connection"} | {
    "plan",
    "memory",
    "flags",
    "gateway",
}
MOST_LINES = 38
"""Lines of a preview --diff for one changed value.

The engine prints 9 for any preview, 4 for each resource that changes (id, URN, provider), and up to 8 around each
changed line of a text. Ours are the changed lines, the digest of what vLLM restarts for, and the sentence about it.
They were 136 while the explanations of the plan were exported, and 60 while the plan was one output.
"""
CHANGES = {
    "requests_per_minute: 6000 => 601": {"gateway": {"requests_per_minute": 601}},
    "+ --max-num-batched-tokens 1024": {"engine": {"flags": {"max-num-batched-tokens": 1024}}},
}
"""Changes of one value, by a line of their preview."""
# Tokens of a stream that takes some seconds; the engines differ in speed.
LONG = {"fake": 150, "real": 600}
CASES = [
    ("fake", "block"),
    ("real", "share"),
    # The cases above cover each engine and each kind of volume within the time of CI.
    pytest.param("fake", "share", marks=pytest.mark.all),
    pytest.param("real", "block", marks=pytest.mark.all),
]


def png() -> str:
    """Return a blue square of 56 pixels as a data URL."""
    size = 56
    raw = b"".join(b"\0" + b"\x20\x40\xff" * size for _ in range(size))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(raw))
        + chunk(b"IEND", b"")
    )
    return "data:image/png;base64," + base64.b64encode(data).decode()


def chat(ai, model, content="How are you?", **more):
    return ai.chat.completions.create(
        model=model, messages=[{"role": "user", "content": content}], temperature=0, max_tokens=48, **more
    )


def streamed(ai, model, effort):
    reasoning, answer = "", ""
    for chunk in chat(ai, model, stream=True, reasoning_effort=effort):
        for choice in chunk.choices:
            answer += choice.delta.content or ""
            reasoning += (
                getattr(choice.delta, "reasoning", None)
                or getattr(choice.delta, "reasoning_content", None)
                or ""
            )
    return reasoning, answer


@pytest.mark.parametrize(("engine", "kind"), CASES, ids=lambda value: value)
def test_a_stack_serves_and_its_volume_outlives_the_machine(projects, tmp_path, engine, kind):
    project = projects(engine, region=REGIONS[kind])
    project.up()
    outputs = project.outputs()
    assert outputs.keys() >= EXPORTS
    assert outputs["endpoint"].endswith("/v1")
    assert outputs["evidence"]["readiness"]["passed"] is True

    ai, model = client(outputs, tmp_path), outputs["model"]
    assert [served.id for served in ai.models.list()] == [model, f"pulumi-vllm/{model}"]
    reasoning, answer = streamed(ai, model, "none")
    assert (reasoning, answer.strip()) == ("", "The quick brown fox jumps over a lazy dog.")
    reasoning, answer = streamed(ai, model, "high")
    assert reasoning.strip()
    assert "fox" in answer
    called = chat(ai, model, tools=TOOLS).choices[0].message.tool_calls
    assert called[0].function.name == "get_weather"
    image = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": png()}}]
    assert "picture" in chat(ai, model, image).choices[0].message.content
    with pytest.raises(openai.AuthenticationError):
        chat(ai.with_options(api_key="sk-wrong"), model)

    if kind == "share":  # the gateway does not depend on the kind of volume
        smoke_and_bench(project)

    assert set(project.changes()) == {"same"}, "a second preview proposes changes"

    if engine == "fake":  # a preview does not depend on the engine
        preview_changes(project)

    drained(project, ai, model, LONG[engine])
    left = project.sweep()
    ours = [row for row in json.loads(left.stdout)["found"] if row["name"].startswith(f"{project.stack}-")]
    assert [(row["kind"], row["claim"]) for row in ours] == [("volume", "kept")]

    project.up()
    (weights,) = [r for r in project.resources() if r["type"] == "vllm:host:Weights"]
    assert weights["outputs"]["downloadedBytes"] == 0, (
        "the volume was adopted, and still something was downloaded"
    )
    assert chat(client(project.outputs(), tmp_path), model).choices[0].message.content


def preview_changes(project):
    """Preview changes of one line, each of which must be easy to find."""
    for line, change in CHANGES.items():
        project.write(project.block | change)
        shown = project.pulumi("preview", "--diff").stdout
        assert line in shown
        assert len(shown.splitlines()) <= MOST_LINES, f"a change of one line is lost in\n{shown}"
    project.write(project.block)


def smoke_and_bench(project):
    """Check that `smoke` and `bench` find the stack and report what it does and how fast."""
    smoked = project.cli("smoke", "--json")
    checks = {one["check"]: one for one in json.loads(smoked.stdout)["checks"]}
    assert {one["outcome"] for one in checks.values()} == {"pass"}, checks
    assert smoked.returncode == 0
    benched = project.cli("bench", "--json", "--levels", "1,4", "--input", "64", "--output", "16")
    assert benched.returncode == 0, benched.stderr
    rows = json.loads(benched.stdout)["rows"]
    assert [(row["completed"], row["failed"]) for row in rows] == [(4, 0), (12, 0)]
    assert all(row["output_throughput"] > 0 for row in rows)
    (saved,) = project.folder.glob(f".pulumi-vllm/bench/{project.stack}/*.json")
    assert project.outputs()["api_key"] not in smoked.stderr + benched.stderr + saved.read_text()


def drained(project, ai, model, tokens):
    """Destroy while streams run: each finishes, and new requests get a Retry-After."""
    project.cloud.pass_minutes(30)
    ended, refused, late = [], [], []

    def run():
        while True:
            began = time.monotonic()
            try:
                *_, last = chat_long(ai, model, tokens)
            except openai.InternalServerError as error:
                refused.append(error.response)
                return
            except openai.APIConnectionError:
                late.append(began)
                return
            ended.append((time.monotonic(), last.choices[0].finish_reason))

    streams = [threading.Thread(target=run) for _ in range(3)]
    for stream in streams:
        stream.start()
        time.sleep(1)
    destroying = project.start("destroy", "--yes", "--skip-preview")
    for stream in streams:
        stream.join(timeout=120)
    out, _ = destroying.communicate(timeout=300)
    assert destroying.returncode == 0, out
    assert ended
    assert {reason for _, reason in ended} <= {"length", "stop"}
    # A request after the last stream may find the gateway stopped.
    assert all(began >= max(ended)[0] for began in late), "a running stream was cut"
    assert refused, "no newcomer was refused while the others were served to their end"
    assert {answer.status_code for answer in refused} == {503}
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in refused)
