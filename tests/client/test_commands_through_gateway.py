"""Both commands through the gateway's HAProxy (TLS, keys, limits), and with errors and outputs of the Pulumi CLI."""

import asyncio
import gc
import json
import os
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from pulumi_vllm.cli import main
from pulumi_vllm.client.endpoint import from_url
from pulumi_vllm.client.load_generator import Level, Load
from pulumi_vllm.client.load_generator import run as run_level

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.ci, pytest.mark.usefixtures("key")]
SHORT = ["--input", "8", "--output", "2"]


def run(capsys, *words):
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err.splitlines()[-1]


def test_both_commands_with_the_gateways_own_ca(engine, gateway, tmp_path, capsys):
    there = gateway(engine, streams_per_key=8)
    code, out, _ = run(capsys, "smoke", "--json", "--url", there.url, "--ca", there.ca)
    assert code == 0, out
    assert {one["outcome"] for one in json.loads(out)["checks"]} == {"pass"}
    # Prompts that are longer than the gateway's buffer.
    words = ["--levels", "1,8", "--input", "512", "--output", "256", "--out", tmp_path]
    code, out, _ = run(capsys, "bench", "--json", "--url", there.url, "--ca", there.ca, *words)
    assert code == 0
    assert [(row["completed"], row["failed"]) for row in json.loads(out)["rows"]] == [(4, 0), (24, 0)]


def test_only_the_given_ca_or_certificate_is_trusted(engine, gateway, capsys):
    there, other = gateway(engine), gateway(engine)
    assert run(capsys, "smoke", "--url", there.url, "--ca", there.leaf)[0] == 0
    for words in (["--ca", other.ca], []):
        code, _, last = run(capsys, "smoke", "--url", there.url, *words)
        assert code == 1
        assert "the certificate is not trusted" in last
        assert "--ca FILE" in last
    assert "is https meant?" in run(capsys, "smoke", "--url", there.url.replace("https", "http"))[2]
    assert "the TLS handshake failed" in run(capsys, "smoke", "--url", engine.url.replace("http", "https"))[2]


def test_a_gateway_limit_is_named_and_earlier_levels_are_kept(engine, gateway, tmp_path, capsys):
    there = gateway(engine, requests_per_minute=20, streams_per_key=8)
    where = ["--url", there.url, "--ca", there.ca, "--out", tmp_path]
    code, out, last = run(capsys, "bench", "--json", *where, *SHORT, "--levels", "1,8")
    assert code == 1
    first, second = json.loads(out)["rows"]
    assert first["output_throughput"] > 0
    assert (first["failed"], second["failed"], "output_throughput" in second) == (0, 1, False)
    assert last.startswith("pulumi-vllm: 8 streams: stopped after ")
    assert "(429: Key team-a may make 20 requests in 60 s (requests_per_minute).); raise it under" in last
    (kept,) = tmp_path.glob("127.0.0.1*/*.json")
    assert json.loads(kept.read_text())["rows"] == [first, second]


def test_a_request_larger_than_the_gateway_allows(start, gateway, capsys):
    """262,136 ids are 1.5 MiB. The client must read the answer although the gateway did not read the body."""
    there = gateway(start("--max-model-len", "262144", name="mistral-small-4"), max_body_mib=1)
    code, out, _ = run(capsys, "smoke", "--json", "--url", there.url, "--ca", there.ca)
    (long,) = [one for one in json.loads(out)["checks"] if one["check"] == "long context"]
    assert (code, long["outcome"]) == (1, "fail")
    assert "(413); raise server.gateway.max_body_mib" in long["sentence"]


def test_streams_that_are_given_up_leave_no_connection_open(start, gateway):
    """The refusal of one stream ends the others, whose answers have begun, are awaited or are being sent."""
    there = gateway(start("--max-num-seqs", "256", token_ms=5), streams_per_key=40)
    for seed in range(40):  # a polite end over TLS outlived the event loop in one of some 30 runs
        bodies = Load(output_tokens=256, seed=seed).bodies("mistral-small-4-tiny", 41, 41, 256)
        level = Level(41, 41, lambda _: None)
        asyncio.run(run_level(from_url(there.url, there.ca), bodies, level))
        assert "40 requests running or waiting at once" in str(level.error)
        connected = [one for one in gc.get_objects() if isinstance(one, socket.socket) and one.fileno() != -1]
        assert [one for one in connected if one.getpeername()[1] == urlsplit(there.url).port] == []


def test_more_streams_than_the_gateway_allows_one_key(start, gateway, tmp_path, capsys):
    there = gateway(start(token_ms=50), streams_per_key=2)
    where = ["--url", there.url, "--ca", there.ca, "--out", tmp_path]
    code, _, last = run(capsys, "bench", *where, "--input", "8", "--output", "8", "--levels", "6")
    assert code == 1
    assert "2 requests running or waiting at once" in last


def test_an_engine_that_has_stopped_is_named_as_the_cause(start, gateway, tmp_path, capsys):
    engine = start()
    there = gateway(engine)
    where = ["--url", there.url, "--ca", there.ca]
    engine.process.kill()
    engine.process.wait()
    end = time.monotonic() + 30
    while time.monotonic() < end:  # until the gateway has noticed
        code, _, last = run(capsys, "smoke", *where)
        if "(503" in last:
            break
    assert code == 1
    assert (
        "the engine does not serve right now (503: The engine is not ready, draining, or has no free place. "
        "Try again in 10 s.)" in last
    )
    assert "(503" in run(capsys, "bench", *where, *SHORT, "--levels", "1", "--out", tmp_path)[2]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty folder with Pulumi's file backend."""
    (tmp_path / "state").mkdir()
    for name, value in {
        "PULUMI_HOME": tmp_path / "home",
        "PULUMI_BACKEND_URL": f"file://{tmp_path}/state",
        "PULUMI_CONFIG_PASSPHRASE": "test",
        "PULUMI_SKIP_UPDATE_CHECK": "1",
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_errors_of_the_pulumi_cli_are_passed_on(project, capsys):
    assert "no Pulumi.yaml project file found" in run(capsys, "smoke")[2]
    (project / "Pulumi.yaml").write_text("name: p\nruntime: python\n")
    assert "give --stack NAME" in run(capsys, "smoke")[2]
    code, _, last = run(capsys, "bench", "--stack", "nothing")
    assert code == 1
    assert "no stack named 'nothing' found" in last
    subprocess.run(["pulumi", "stack", "init", "dev"], check=True, capture_output=True, env=os.environ)
    assert "stack dev: has no output `endpoint`; nothing is deployed" in run(capsys, "smoke")[2]


PROGRAM = """
import json, pulumi
for name, value in json.load(open("outputs.json")).items():
    pulumi.export(name, pulumi.Output.secret(value) if name == "api_key" else value)
"""


def test_a_gpu_stack_is_compared_with_its_evidence(start, gateway, project, capsys, monkeypatch):
    """The real Pulumi CLI provides the outputs of a GPU stack; the fake engine takes the place of its machine."""
    from pulumi_vllm.plan import Deployment, explain, plan

    key = os.environ["VLLM_API_KEY"]
    monkeypatch.delenv("VLLM_API_KEY")
    text = (ROOT / "stacks/Pulumi.spheron-h100-1x-nvfp4.yaml").read_text()
    block = yaml.safe_load(text)["config"]["pulumi-vllm:server"]
    decided = plan(Deployment.parse(block | {"concurrency": 250}))  # 256 were measured
    there = gateway(start(name=decided.served_name, token_ms=1), streams_per_key=40)
    limits = {"requests_per_minute": 60, "streams_per_key": 40}
    outputs = {
        "endpoint": there.url, "model": decided.served_name, "ca_certificate": there.ca.read_text(),
        "api_key": key, "usd_per_hour": 2.54, **explain.exported(explain.summary(decided) | {"gateway": limits}),
    }  # fmt: skip
    (project / "outputs.json").write_text(json.dumps(outputs))
    (project / "__main__.py").write_text(PROGRAM)
    runtime = {"name": "python", "options": {"virtualenv": str(ROOT / ".venv")}}
    (project / "Pulumi.yaml").write_text(yaml.safe_dump({"name": "p", "runtime": runtime}))
    for words in (["stack", "init", "gpu"], ["up", "--yes", "--skip-preview"]):
        done = subprocess.run(["pulumi", *words], check=False, capture_output=True, env=os.environ, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert run(capsys, "bench", "--levels", "1,41")[2].endswith(
        "raise server.gateway.streams_per_key in the stack file"
    )
    code = main(["bench", "--levels", "1,32"])
    out, err = capsys.readouterr()
    assert code == 0, err
    assert "the gateway allows 60 requests per key in a minute, and the bench makes 132" in err
    head, _, compared = out.partition("against measured, ")
    assert compared.splitlines()[0].endswith(" with other flags (--max-num-seqs 256)")
    assert head.startswith("mistral-small-4, nvfp4, 1x H100, vLLM 0.26.0: 512 tokens in, 256 out")
    assert [line.split()[:3] for line in compared.splitlines()[1:3]] == [
        ["1", "output", "tok/s"],
        ["32", "output", "tok/s"],
    ]
    assert "measured with: --load-format" in compared
    assert key not in out + err
    (saved,) = project.glob(".pulumi-vllm/bench/gpu/*.json")
    assert key not in saved.read_text()
