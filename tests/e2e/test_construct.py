"""The component in a program of another language, for which the plugin constructs it."""

import textwrap

import yaml
from harness import Project, block

PROGRAM = """
    import json
    import os

    import pulumi


    class Server(pulumi.ComponentResource):
        def __init__(self, name, server):
            props = {"server": server, "endpoint": None, "plan": None}
            super().__init__("vllm:index:Server", name, props, None, True)


    server = Server("llm", json.loads(os.environ["SERVER_BLOCK"]))
    pulumi.export("plan", server.plan)
"""


def test_a_remote_server_previews_all_its_resources(clouds, tmp_path, monkeypatch):
    import json

    monkeypatch.setenv("SERVER_BLOCK", json.dumps(block()))
    project = Project(tmp_path / "remote", clouds("fake"), block(), "remote")
    program = tmp_path / "program"
    program.mkdir()
    (program / "__main__.py").write_text(textwrap.dedent(PROGRAM))
    settings = yaml.safe_load((project.folder / "Pulumi.yaml").read_text())
    (project.folder / "Pulumi.yaml").write_text(yaml.safe_dump({**settings, "main": str(program)}))
    shown = project.pulumi("preview", "--diff").stdout
    for kind in ("spheron:Instance", "spheron:Volume", "host:Files", "host:Weights", "host:Service"):
        assert f"vllm:{kind}" in shown
    assert "0.01" in shown
