"""A machine that was rented by hand becomes a resource, and is waited for and pinned by the next `up`."""

import textwrap

import yaml
from conftest import REGIONS
from harness import Project, block, wait_for


def test_an_existing_machine_is_adopted_by_import(clouds, tmp_path):
    cloud = clouds("fake")
    project = Project(tmp_path / "import", cloud, block(), "import")
    program = tmp_path / "program"
    program.mkdir()
    settings = yaml.safe_load((project.folder / "Pulumi.yaml").read_text())
    (project.folder / "Pulumi.yaml").write_text(yaml.safe_dump({**settings, "main": str(program)}))
    source = """
        import pulumi
        from pulumi_vllm import Instance, SshKey

        key = SshKey("key")
        pulumi.export("key", key.key_id)
    """
    (program / "__main__.py").write_text(textwrap.dedent(source))
    project.up()

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
    try:
        wait_for(
            lambda: cloud.api(f"/api/deployments/{made['id']}")["status"] == "running", 60, "running machine"
        )
        shown = project.pulumi(
            "import",
            "vllm:spheron:Instance",
            "machine",
            made["id"],
            "--yes",
            "--generate-code=false",
            "--protect=false",
        ).stdout
        assert "imported" in shown

        source += """
        Instance("machine", gpu="CPU", count=0, ssh_key_id=key.key_id, ssh_public_key=key.public_key,
                 ssh_private_key=key.private_key_pem, provider={!r}, region={!r})
        """.format(offer["provider"], REGIONS["share"])  # fmt: skip
        (program / "__main__.py").write_text(textwrap.dedent(source))
        assert "replace" not in project.pulumi("preview").stdout
        project.up()
        (machine,) = [r for r in project.resources() if r["type"] == "vllm:spheron:Instance"]
        assert machine["id"] == made["id"]
        assert machine["outputs"]["hostKey"].startswith("ssh-")
        assert set(project.changes()) == {"same"}
    finally:
        cloud.pass_minutes(30)
        project.destroy()
    assert made["id"] not in {one["id"] for one in cloud.machines()}
