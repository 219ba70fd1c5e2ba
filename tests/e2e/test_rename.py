"""A stack that is renamed, and resources under another parent: CA, keys, instance and volume stay."""

import textwrap

import pytest
import yaml
from harness import REGIONS, Project, block

PROGRAM = """
    import pulumi
    from pulumi_vllm import Server

    config = pulumi.Config("pulumi-vllm")
    opts = {opts}
    Server("server", {{"server": config.require_object("server")}}, opts).export_outputs()
"""
TEAM = """
class Team(pulumi.ComponentResource):
    def __init__(self):
        super().__init__("acme:index:Team", "team")

"""
UNDER_TEAM = (
    "pulumi.ResourceOptions(parent=Team(), aliases=[pulumi.Alias(parent=pulumi.ROOT_STACK_RESOURCE)])"
)
KEPT = ("ca_certificate", "api_keys", "endpoint", "connection")


def write(project, opts: str) -> None:
    program = project.folder / "program"
    program.mkdir(exist_ok=True)
    source = textwrap.dedent(PROGRAM).format(opts=opts)
    (program / "__main__.py").write_text(source.replace("\nconfig", f"\n{TEAM}\nconfig", 1))
    settings = yaml.safe_load((project.folder / "Pulumi.yaml").read_text())
    (project.folder / "Pulumi.yaml").write_text(yaml.safe_dump({**settings, "main": str(program)}))


def kept_volume(project, volume) -> None:
    """Check that the stack has this volume, and downloaded nothing."""
    (again,) = [r for r in project.resources() if r["type"] == "vllm:spheron:Volume"]
    assert again["id"] == volume["id"]
    (weights,) = [r for r in project.resources() if r["type"] == "vllm:host:Weights"]
    assert weights["outputs"]["downloadedBytes"] == 0


@pytest.mark.all
def test_a_renamed_stack_and_another_parent_keep_everything(clouds, tmp_path):
    project = Project(
        tmp_path / "p", clouds("fake"), block(machine={"region": REGIONS["block"]}), "before-rename"
    )
    write(project, "None")
    try:
        project.up()
        before = project.outputs()
        (volume,) = [r for r in project.resources() if r["type"] == "vllm:spheron:Volume"]

        project.pulumi("stack", "rename", "after-rename")
        project.stack = "after-rename"
        write(project, UNDER_TEAM)
        name = volume["outputs"]["volumeName"]
        assert f"Set `server.volume: {name}` in the stack file" in project.pulumi("preview").stdout
        changes = project.changes()
        assert changes.keys() <= {"same", "create"}, changes
        assert changes.get("create") == 1, "only the component Team is new"
        project.up()
        after = project.outputs()
        assert {name: after[name] for name in KEPT} == {name: before[name] for name in KEPT}

        # Nobody has set `server.volume`: only the state still knows the volume, so it stays there.
        project.cloud.pass_minutes(30)
        failed = project.pulumi("destroy", "--yes", "--skip-preview", check=False)
        assert failed.returncode
        assert f"the volume {name} is kept" in failed.stdout
        assert not [m for m in project.cloud.machines() if m["name"].startswith("before-rename-")]
        shown = project.up()
        assert "adopted the volume" not in shown
        kept_volume(project, volume)

        # With it, `destroy` ends, and the volume is found by its name.
        project.write(project.block | {"volume": name})
        project.up()
        project.cloud.pass_minutes(30)
        assert f"kept the volume {name}" in project.destroy()
        project.write(project.block)
        assert f"the volume {name} (2 GB in Finland 3" in project.pulumi("preview").stdout
        project.write(project.block | {"volume": name})
        shown = project.up()
        assert f"adopted the volume {name}" in shown
        assert "server.volume" not in shown
        kept_volume(project, volume)
    finally:
        project.cloud.pass_minutes(30)
        project.destroy(check=False)
