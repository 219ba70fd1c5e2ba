"""`pulumi-vllm smoke` as a user runs it, against the stand-in engine."""

import json

import pytest
from pulumi_vllm.cli import main

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
