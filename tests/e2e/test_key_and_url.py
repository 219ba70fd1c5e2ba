"""API key or URL of the cloud change: the state holds the old one, and the error names the command that helps."""

import os
import socket

import pytest
import yaml
from harness import REGIONS, LocalCloud, Project, block

PROGRAM = """
import pulumi
from pulumi_vllm import Provider, SshKey, Volume

config = pulumi.Config()
key, url = config.get_secret("spheronApiKey"), config.get("spheronUrl")
opts = pulumi.ResourceOptions(provider=Provider("account", spheron_api_key=key, spheron_url=url))
opts = opts if key or url else None
SshKey("key", opts=opts)
Volume("volume", size_gb=1, gpu="CPU", count=0, region={region!r}, keep=False, opts=opts)
"""
# What a user sets: something of the default provider, or something that the program passes to a Provider.
WAYS = {"Provider": "pulumi-vllm", "configuration": "vllm"}
BOTH = pytest.mark.parametrize(
    "way", [WAYS["Provider"], pytest.param(WAYS["configuration"], marks=pytest.mark.all)], ids=list(WAYS)
)


@pytest.fixture
def cloud(place):
    """Return a cloud of this test alone, because its key and its port change."""
    cloud = LocalCloud(place / "cloud", "fake")
    cloud.up()
    yield cloud
    cloud.down()


@pytest.fixture
def project(cloud, tmp_path):
    region = REGIONS["share"]
    project = Project(tmp_path / "account", cloud, block(machine={"region": region}), "account")
    program = tmp_path / "program"
    program.mkdir()
    (program / "__main__.py").write_text(PROGRAM.format(region=region))
    settings = yaml.safe_load((project.folder / "Pulumi.yaml").read_text())
    (project.folder / "Pulumi.yaml").write_text(yaml.safe_dump({**settings, "main": str(program)}))
    return project


def move(cloud: LocalCloud) -> str:
    """Restart the cloud on another port and return its new URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cloud.command("up", "--engine", cloud.engine, "--port", str(port))
    return f"http://127.0.0.1:{port}"


def refused_until_the_state_has_it(project: Project, *hidden: str) -> None:
    """Check that preview and destroy name the command, and that everything works after it."""
    for command in (["preview"], ["destroy", "--yes"]):
        done = project.pulumi(*command, check=False)
        assert done.returncode != 0, done.stdout
        assert "`pulumi up --refresh=false` once" in done.stdout, f"{command}\n{done.stdout}"
        assert not any(secret in done.stdout for secret in hidden)

    project.pulumi("up", "--yes", "--skip-preview", "--refresh=false")
    assert set(project.changes()) == {"same"}
    project.destroy()
    assert project.resources() == []


@BOTH
def test_after_a_rotation_of_the_key_the_error_names_the_command_that_helps(project, way):
    old = project.environment.pop("SPHERON_API_KEY")
    new = f"sai_pk_new_{os.getpid()}"
    project.pulumi("config", "set", "--secret", f"{way}:spheronApiKey", old)
    project.up()

    project.cloud.api("/_sim/options", "POST", {"api_key": new})
    project.pulumi("config", "set", "--secret", f"{way}:spheronApiKey", new)
    refused_until_the_state_has_it(project, old, new)


@BOTH
def test_after_a_move_of_the_cloud_the_error_names_the_command_that_helps(project, cloud, way):
    old = project.environment.pop("SPHERON_URL")
    project.pulumi("config", "set", f"{way}:spheronUrl", old)
    project.up()

    project.pulumi("config", "set", f"{way}:spheronUrl", move(cloud))
    refused_until_the_state_has_it(project)


@pytest.mark.all
def test_a_moved_cloud_that_only_the_environment_names_needs_nothing(project, cloud):
    project.up()
    project.environment["SPHERON_URL"] = move(cloud)
    assert set(project.changes()) == {"same"}
    project.destroy()
    assert project.resources() == []
