"""Users' commands with the real pulumi-command, if its plugin is on PATH, because tests download no programs."""

import shutil
import textwrap

import pytest
import yaml
from harness import REGIONS, Project, block

PROGRAM = """
    import pulumi
    import pulumi_command
    from pulumi_vllm import Server

    config = pulumi.Config("pulumi-vllm")
    trace = "echo {} | sudo tee -a /models/trace"  # the volume outlives the machine
    commands = [
        {"name": name, "create": f"cat > /dev/null; {trace.format(name)}", "delete": trace.format(f"undo-{name}"),
         "stdin": pulumi.Output.secret("planted-in-stdin")}
        for name in ("first", "second")
    ]
    server = Server("server", {"server": config.require_object("server"), "commands": commands})
    if config.get("stranger"):
        stranger = server.connection
        stranger.host_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFakeFakeFakeFakeFakeFakeFakeFakeFakeFakeFak"
        stranger.dial_error_limit = 1
        pulumi_command.remote.Command("stranger", connection=stranger, create="true")
    pulumi.export("connection", server.connection_info)
"""


@pytest.fixture
def project(clouds, tmp_path):
    if shutil.which("pulumi-resource-command") is None:
        pytest.skip(
            "no pulumi-resource-command on PATH: docs/how-to/run-commands-on-the-host.md says how it was tried"
        )
    project = Project(
        tmp_path / "commands", clouds("fake"), block(machine={"region": REGIONS["block"]}), "commands"
    )
    program = tmp_path / "program"
    program.mkdir()
    (program / "__main__.py").write_text(textwrap.dedent(PROGRAM))
    settings = yaml.safe_load((project.folder / "Pulumi.yaml").read_text())
    (project.folder / "Pulumi.yaml").write_text(yaml.safe_dump({**settings, "main": str(program)}))
    yield project
    project.cloud.pass_minutes(30)
    project.destroy()


@pytest.mark.all
def test_commands_run_after_readiness_and_are_undone_before_the_delete(project):
    project.up()
    assert project.on_host("cat /models/trace").split() == ["first", "second"]
    assert set(project.changes()) == {"same"}
    kept = "".join(file.read_text() for file in (project.folder / "state").rglob("*.json"))
    assert "server-command-second" in kept
    assert "planted-in-stdin" not in kept

    before = project.machine_id()
    (urn,) = [r["urn"] for r in project.resources() if r["type"] == "vllm:spheron:Instance"]
    project.cloud.pass_minutes(30)
    project.pulumi("up", "--yes", "--skip-preview", "--replace", urn)
    assert project.machine_id() != before
    done = ["first", "second"]
    assert project.on_host("cat /models/trace").split() == [*done, "undo-second", "undo-first", *done]

    project.write(project.block, **{"pulumi-vllm:stranger": True})
    refused = project.pulumi("up", "--yes", "--skip-preview", check=False)
    assert refused.returncode != 0
    assert "host key mismatch" in refused.stdout
    project.write(project.block, **{"pulumi-vllm:stranger": ""})
