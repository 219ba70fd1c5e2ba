"""A user's project: the package in its own environment, and a folder that `init` created."""

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from consumer import Consumer
from harness import REPOSITORY, block

UNIT = "/etc/systemd/system/vllm.service"


def test_the_readme_serves_a_model_from_an_empty_folder(place):
    """Only this test shows that the package works without the checkout."""
    clone = place / "clone"
    subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(clone)], check=True)
    section = (clone / "docs/tutorial.md").read_text().partition("## In a project of your own")[2]
    first, then, *_ = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    consumer = Consumer(place / "models", "local")
    try:
        consumer.shell(first, clone)
        assert consumer.outputs()["endpoint"].startswith("https://")

        consumer.fresh_home()
        consumer.on_host(f"sed -i 's/--max-num-seqs [0-9]*/--max-num-seqs 3/' {UNIT}")
        shown = consumer.pulumi("preview", "--diff", "--expect-no-changes", check=False)
        assert shown.returncode != 0
        assert "--max-num-seqs 3" in shown.stdout
        consumer.up()
        again = consumer.pulumi("stack", "output", "usd_per_hour").stdout
        assert float(again) > 0

        consumer.fresh_home()
        consumer.shell(then, clone)
        assert consumer.resources() == []
    finally:
        consumer.pulumi("destroy", "--yes", "--skip-preview", check=False)
        consumer.shell(".venv/bin/pulumi-vllm local down --purge || true")


def test_a_missing_plugin_is_an_error_with_the_command(place):
    consumer = Consumer(place / "models", "local", SPHERON_API_KEY="sai_pk_of_no_account")
    init = [sys.executable, "-m", "pulumi_vllm.cli", "init", str(consumer.folder)]
    subprocess.run(init, check=True, capture_output=True)
    (consumer.folder / ".venv").symlink_to(REPOSITORY / ".venv")
    consumer.pulumi("stack", "init", "local")
    project = consumer.folder / "Pulumi.yaml"
    named = project.read_text()
    project.write_text(named.partition("plugins:")[0])
    shown = consumer.pulumi("preview", check=False)
    assert shown.returncode != 0
    assert f"run in {consumer.folder}: pulumi-vllm init" in shown.stdout
    # Also in the error of the engine, which programs in other languages show.
    assert re.search("error: no resource plugin .*/run_pulumi-vllm_init_in_the_project_folder", shown.stdout)

    subprocess.run(init, check=True, capture_output=True)
    assert project.read_text() == named, "what was missing is there again"


PROGRAM = """
    import json
    import os
    import sys

    import pulumi
    from pulumi import automation as auto
    from pulumi_vllm import Provider, Server

    folder, stack, command = sys.argv[1:]
    blocks = json.loads(os.environ["BLOCKS"])


    def slower(args):
        if args.type_ == "vllm:spheron:Instance":
            return pulumi.ResourceTransformResult({**args.props, "drainTimeoutS": 7}, args.opts)
        return None


    def program():
        account = Provider(
            "account", spheron_api_key=os.environ["ACCOUNT_KEY"], spheron_url=os.environ["ACCOUNT_URL"]
        )
        opts = pulumi.ResourceOptions(provider=account, transforms=[slower])
        for name, block in blocks.items():
            server = Server(name, {"server": block, "keys": {"default": pulumi.Output.secret("sk-" + name)}}, opts)
            pulumi.export(name, server.endpoint)


    opts = auto.LocalWorkspaceOptions(work_dir=folder)  # the folder that `init` created, which names the plugin
    made = auto.create_or_select_stack(stack, "fleet", program, opts=opts)
    planned = []


    def look(event):
        if event.resource_pre_event:
            step = event.resource_pre_event.metadata
            planned.append([step.type, step.provider, (step.new.inputs or {}).get("drainTimeoutS")])


    if command == "preview":
        changes = made.preview(on_event=look).change_summary
    else:
        changes = getattr(made, command)().summary.resource_changes
    state = made.export_stack().deployment.get("resources", [])
    changes = {getattr(kind, "value", kind): count for kind, count in changes.items()}
    print(json.dumps({"changes": changes, "planned": planned, "state": state}))
"""


class Fleet(Consumer):
    """Two servers in an inline program under the Automation API, with an explicit provider."""

    def __init__(self, place: Path, cloud, blocks: dict):
        super().__init__(
            place / "fleet", "two", BLOCKS=json.dumps(blocks),
            PULUMI_VLLM_LOCAL_HUB=cloud.environment["PULUMI_VLLM_LOCAL_HUB"],
            # The explicit provider has the account; the environment does not.
            ACCOUNT_KEY=cloud.environment["SPHERON_API_KEY"], ACCOUNT_URL=cloud.environment["SPHERON_URL"],
        )  # fmt: skip
        self.folder.mkdir()
        subprocess.run(
            [sys.executable, "-m", "pulumi_vllm.cli", "init", str(self.folder)],
            check=True,
            capture_output=True,
        )
        (self.folder / ".venv").symlink_to(REPOSITORY / ".venv")
        (place / "program.py").write_text(textwrap.dedent(PROGRAM))

    def run(self, command: str) -> dict:
        done = subprocess.run(
            [sys.executable, self.folder.parent / "program.py", self.folder, self.stack, command],
            env=self.environment, text=True, capture_output=True, check=False, timeout=900,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])


def blocks() -> dict:
    from harness import REGIONS

    return {name: block(machine={"region": region}) for name, region in REGIONS.items()}


def test_the_automation_api_previews_two_servers_with_an_explicit_provider(clouds, place):
    fleet = Fleet(place, clouds("fake"), blocks())
    preview = fleet.run("preview")
    assert preview["changes"] == {"create": 24}
    planned = [row for row in preview["planned"] if row[0].startswith("vllm:") and row[1]]
    assert {provider.split("::")[-2] for _, provider, _ in planned} == {"account"}, "none has another account"
    assert [drain for kind, _, drain in planned if kind == "vllm:spheron:Instance"] == [7, 7]


@pytest.mark.all
def test_two_servers_run_side_by_side(clouds, place):
    cloud = clouds("fake")
    fleet = Fleet(place, cloud, blocks())
    try:
        state = fleet.run("up")["state"]
        machines = [one for one in state if one["type"] == "vllm:spheron:Instance"]
        assert len({one["outputs"]["address"] for one in machines}) == 2
        assert [one["inputs"]["drainTimeoutS"] for one in machines] == [7, 7], "the transform has been asked"
        owners = {
            one["provider"].split("::")[-2]
            for one in state
            if one.get("custom") and one["type"][:5] == "vllm:"
        }
        assert owners == {"account"}
        assert fleet.run("preview")["changes"] == {"same": 24}
        kept = "".join(file.read_text() for file in (place / "state").rglob("*.json"))
        assert "fleet" in kept
        assert cloud.environment["SPHERON_API_KEY"] not in kept
    finally:
        cloud.pass_minutes(30)
        left = fleet.run("destroy")["state"]
    assert left == []
