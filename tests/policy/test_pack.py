"""The pack as a process: however an engine starts it, it serves the same policies over gRPC."""

import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from google.protobuf import empty_pb2
from pulumi.runtime.proto import analyzer_pb2_grpc

ROOT = Path(__file__).parents[2]
NAMES = {
    "price-ceiling", "total-price", "volume-kept", "pinned-revision", "engine-port", "user-data", "ttl",
}  # fmt: skip
ENGINE = "127.0.0.1:1"  # the pack asks the engine for nothing
WAYS = {
    "a language host": [sys.executable, "-u", "-m", "pulumi.policy", ENGINE, str(ROOT / "policy")],
    "a language host with a buffer": [sys.executable, str(ROOT / "policy"), ENGINE],
    "the fallback": [str(ROOT / "dev.d/policy/pulumi-analyzer-policy-pack"), ENGINE, "."],
}


@pytest.mark.parametrize("way", WAYS)
def test_an_engine_gets_the_policies(way, monkeypatch):
    monkeypatch.setenv("PULUMI_VLLM_VENV", str(Path(sys.executable).parents[1]))
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    with subprocess.Popen(WAYS[way], stdout=subprocess.PIPE, text=True) as process:
        try:
            port = int(process.stdout.readline())
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                info = analyzer_pb2_grpc.AnalyzerStub(channel).GetAnalyzerInfo(empty_pb2.Empty(), timeout=20)
        finally:
            process.kill()
    assert {policy.name for policy in info.policies} == NAMES
    mandatory = 1
    assert {policy.enforcementLevel for policy in info.policies} == {mandatory}
