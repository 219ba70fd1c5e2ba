"""Import of a machine that was rented by hand; the next `up` waits for it and pins its host key."""

import textwrap

import pytest
import yaml
from harness import REGIONS, Project, block, wait_for

KEY = """
import pulumi
from pulumi_vllm import Instance, Server, SshKey

key = SshKey("key")
pulumi.export("key", key.key_id)
"""


@pytest.fixture
def project(clouds, tmp_path):
    """Return a stack with only an SSH key."""
    project = Project(
        tmp_path / "import", clouds("fake"), block(machine={"region": REGIONS["share"]}), "import"
    )
    (tmp_path / "program").mkdir()
    settings = yaml.safe_load((project.folder / "Pulumi.yaml").read_text())
    (project.folder / "Pulumi.yaml").write_text(
        yaml.safe_dump({**settings, "main": str(tmp_path / "program")})
    )
    write(tmp_path, "")
    project.up()
    return project


def write(tmp_path, source: str) -> None:
    (tmp_path / "program" / "__main__.py").write_text(KEY + textwrap.dedent(source))


def rent(project) -> tuple[str, str]:
    """Rent a machine by hand with the key of the project; return its id and its provider."""
    cloud = project.cloud
    offers = cloud.api("/api/gpu-offers?limit=100")["data"]
    (offer,) = [
        one for group in offers for one in group["offers"]
        if one["gpuCount"] == 0 and one["instanceType"] == "DEDICATED" and REGIONS["share"] in one["clusters"]
    ]  # fmt: skip
    team = cloud.api("/api/balance")["teams"][0]["teamId"]
    made = cloud.api("/api/deployments", "POST", {
        "provider": offer["provider"], "offerId": offer["offerId"], "gpuType": "CPU", "gpuCount": 0,
        "region": REGIONS["share"], "operatingSystem": offer["os_options"][0], "instanceType": "DEDICATED",
        "sshKeyId": project.outputs()["key"], "teamId": team, "name": "by-hand",
    })  # fmt: skip
    wait_for(
        lambda: cloud.api(f"/api/deployments/{made['id']}")["status"] == "running", 60, "running machine"
    )
    return made["id"], offer["provider"]


def test_an_existing_machine_is_adopted_by_import(project, tmp_path):
    machine_id, provider = rent(project)
    cloud = project.cloud
    try:
        shown = project.pulumi(
            "import",
            "vllm:spheron:Instance",
            "machine",
            machine_id,
            "--yes",
            "--generate-code=false",
            "--protect=false",
        ).stdout
        assert "imported" in shown
        assert "bug in the `vllm` provider" not in shown

        source = """
        Instance("machine", gpu="CPU", count=0, ssh_key_id=key.key_id, ssh_public_key=key.public_key,
                 ssh_private_key=key.private_key_pem, provider={!r}, region={!r})
        """.format(provider, REGIONS["share"])  # fmt: skip
        write(tmp_path, source)
        assert "replace" not in project.pulumi("preview").stdout
        project.up()
        (machine,) = [r for r in project.resources() if r["type"] == "vllm:spheron:Instance"]
        assert machine["id"] == machine_id
        assert machine["outputs"]["hostKey"].startswith("ssh-")
        assert set(project.changes()) == {"same"}
    finally:
        cloud.pass_minutes(30)
        project.destroy()
    assert machine_id not in {one["id"] for one in cloud.machines()}


@pytest.mark.all
def test_a_server_adopts_an_existing_machine(project, tmp_path):
    """A transform names the machine; once it is in state, the transform can be removed."""
    machine_id, _ = rent(project)
    server = """
        server = Server(
            "llm",
            {"server": pulumi.Config("pulumi-vllm").require_object("server"), "ssh_private_key": key.private_key_pem},
            pulumi.ResourceOptions(transforms=%s),
        )
        pulumi.export("endpoint", server.endpoint)
    """
    adopt = """
        def adopt(args):
            if args.type_ != "vllm:spheron:Instance":
                return None
            opts = pulumi.ResourceOptions.merge(args.opts, pulumi.ResourceOptions(import_="%s"))
            return pulumi.ResourceTransformResult(args.props, opts)

    """
    try:
        write(tmp_path, adopt % machine_id + server % "[adopt]")
        project.up()
        assert project.machine_id() == machine_id
        (machine,) = project.cloud.machines()
        assert project.outputs()["endpoint"] == f"https://{machine['ipAddress']}/v1"
        write(tmp_path, server % "[]")
        assert set(project.changes()) == {"same"}
    finally:
        project.cloud.pass_minutes(30)
        project.destroy()
    assert machine_id not in {one["id"] for one in project.cloud.machines()}
