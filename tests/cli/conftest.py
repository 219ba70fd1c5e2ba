import json

import pytest
from pulumi_vllm.cli import main


@pytest.fixture
def init(tmp_path, monkeypatch, capsys):
    """`pulumi-vllm init` in a folder of its own: the exit code, and its JSON or its sentences."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = main(["init", *arguments, "--json"])
        printed = capsys.readouterr()
        return code, json.loads(printed.out) if printed.out else printed.err

    return run
