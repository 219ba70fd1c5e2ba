"""The API key is replaced at the cloud: the state holds the old one, and the error names the command that helps."""

import os

import pytest
import yaml
from harness import REGIONS, Project, block

PROGRAM = """
import pulumi
from pulumi_vllm import Provider, SshKey, Volume

config = pulumi.Config()
key = config.get_secret("spheronApiKey")
opts = pulumi.ResourceOptions(provider=Provider("account", spheron_api_key=key)) if key else None
SshKey("key", opts=opts)
Volume("volume", size_gb=1, gpu="CPU", count=0, region={region!r}, keep=False, opts=opts)
"""
# What a user sets: the key of the default provider, or one that the program passes to a Provider.
WAYS = {"Provider": "pulumi-vllm:spheronApiKey", "configuration": "vllm:spheronApiKey"}


@pytest.fixture
def project(clouds, tmp_path):
    project = Project(
        tmp_path / "rotation", clouds("fake"), block(machine={"region": REGIONS["share"]}), "rotation"
    )
    program = tmp_path / "program"
    program.mkdir()
    (program / "__main__.py").write_text(PROGRAM.format(region=REGIONS["share"]))
    settings = yaml.safe_load((project.folder / "Pulumi.yaml").read_text())
    (project.folder / "Pulumi.yaml").write_text(yaml.safe_dump({**settings, "main": str(program)}))
    right = project.environment.pop("SPHERON_API_KEY")
    yield project
    project.cloud.api("/_sim/options", "POST", {"api_key": right})
    for name in WAYS.values():
        project.pulumi("config", "rm", name, check=False)
    project.environment["SPHERON_API_KEY"] = right
    if project.resources():
        project.pulumi("up", "--yes", "--skip-preview", "--refresh=false", check=False)
        project.destroy(check=False)


@pytest.mark.parametrize("way", ["Provider", pytest.param("configuration", marks=pytest.mark.all)])
def test_after_a_rotation_the_error_names_the_command_that_helps(project, way):
    old, new = project.cloud.environment["SPHERON_API_KEY"], f"sai_pk_new_{os.getpid()}_{len(way)}"
    project.pulumi("config", "set", "--secret", WAYS[way], old)
    project.up()

    project.cloud.api("/_sim/options", "POST", {"api_key": new})
    project.pulumi("config", "set", "--secret", WAYS[way], new)
    for command in (["preview"], ["destroy", "--yes"]):
        done = project.pulumi(*command, check=False)
        assert done.returncode != 0, done.stdout
        assert "`pulumi up --refresh=false` once" in done.stdout, f"{command}\n{done.stdout}"
        assert old not in done.stdout
        assert new not in done.stdout

    project.pulumi("up", "--yes", "--skip-preview", "--refresh=false")
    assert set(project.changes()) == {"same"}
    project.destroy()
    assert project.resources() == []
