"""The state file is lost: with an export, with the own SSH key and imports, and with neither."""

import shutil
import textwrap

import pytest
import yaml
from harness import REGIONS, Project, block

PROGRAM = """
    import pulumi
    from pulumi_vllm import Server

    IDS = {ids!r}


    def adopt(args):
        if args.type_ not in IDS:
            return None
        opts = pulumi.ResourceOptions.merge(args.opts, pulumi.ResourceOptions(import_=IDS[args.type_]))
        return pulumi.ResourceTransformResult(args.props, opts)


    config = pulumi.Config("pulumi-vllm")
    args = {{"server": config.require_object("server"), "ssh_private_key": config.get_secret("sshPrivateKey")}}
    Server("server", args, pulumi.ResourceOptions(transforms=[adopt])).export_outputs()
"""
KINDS = ("vllm:spheron:Instance", "vllm:spheron:Volume")


def write(project, ids: dict[str, str]) -> None:
    program = project.folder / "program"
    program.mkdir(exist_ok=True)
    (program / "__main__.py").write_text(textwrap.dedent(PROGRAM).format(ids=ids))
    settings = yaml.safe_load((project.folder / "Pulumi.yaml").read_text())
    (project.folder / "Pulumi.yaml").write_text(yaml.safe_dump({**settings, "main": str(program)}))


def rented(project) -> dict[str, str]:
    return {r["type"]: r["id"] for r in project.resources() if r["type"] in KINDS}


def lose(project) -> None:
    """Lose the state, its backups included; the folder with the program and the stack file stays."""
    shutil.rmtree(project.folder / "state")
    (project.folder / "state").mkdir()
    project.pulumi("stack", "init", project.stack)


def downloaded(project) -> int:
    (weights,) = [r for r in project.resources() if r["type"] == "vllm:host:Weights"]
    return weights["outputs"]["downloadedBytes"]


@pytest.mark.all
@pytest.mark.parametrize("kind", ["block", "share"])
def test_a_lost_state(clouds, tmp_path, kind):
    project = Project(
        tmp_path / "p", clouds("fake"), block(machine={"region": REGIONS[kind]}), f"lost-{kind}"
    )
    cloud = project.cloud
    write(project, {})
    try:
        project.up()
        before, ids = project.outputs(), rented(project)

        # A full disk leaves an empty file. The previous state lies beside it.
        file = project.folder / "state" / ".pulumi" / "stacks" / "pulumi-vllm" / f"{project.stack}.json"
        file.write_text("")
        assert "unexpected end of JSON input" in project.pulumi("preview", check=False).stdout
        assert "is empty, as after a full disk" in project.cli("sweep").stderr
        shutil.copy(file.with_name(f"{file.name}.bak"), file)
        assert set(project.changes()) == {"same"}

        # An export, which holds SSH key, CA and API keys, encrypted with the passphrase.
        project.up()
        export = project.folder / "state-of-the-stack.json"
        project.pulumi("stack", "export", "--file", str(export))
        assert before["api_key"] not in export.read_text()
        private = before["connection"]["privateKey"]
        assert private.splitlines()[1] not in export.read_text()
        lose(project)
        shown = project.pulumi("preview", check=False).stdout
        assert f"({ids['vllm:spheron:Instance']})" in shown
        assert "the state of this stack does not contain that instance" in shown
        assert project.cli("sweep").returncode == 2
        project.pulumi("stack", "import", "--file", str(export))
        assert set(project.changes()) == {"same"}
        assert project.outputs() == before

        # No export, but the own SSH key.
        project.pulumi("config", "set", "--secret", "pulumi-vllm:sshPrivateKey", "--", private)
        lose(project)
        write(project, ids)
        shown = project.up()
        assert "bug in the `vllm` provider" not in shown
        assert rented(project) == ids
        assert downloaded(project) == 0
        write(project, {})
        assert set(project.changes()) == {"same"}
        assert project.outputs()["api_key"] != before["api_key"], "keys are lost with the state"

        # Neither: the machine is ended, and the volume is found by its name.
        project.pulumi("config", "rm", "pulumi-vllm:sshPrivateKey")
        lose(project)
        cloud.pass_minutes(30)
        swept = project.cli("sweep", "--delete")
        assert swept.returncode == 0, swept.stdout
        assert ids["vllm:spheron:Instance"] not in {one["id"] for one in cloud.machines()}
        project.up()
        assert rented(project)["vllm:spheron:Volume"] == ids["vllm:spheron:Volume"]
        assert downloaded(project) == 0
    finally:
        cloud.pass_minutes(30)
        project.destroy(check=False)
