"""Replacement of a machine: the old one is deleted first, the volume stays, and nothing is downloaded again."""

import threading

import openai
import pytest
from harness import client

OTHERS = "$(echo /models/cache/*)/others"


def ids(project, kind):
    return [r["id"] for r in project.resources() if r["type"] == kind]


# A link in the place of a folder that root creates, or gives to vllm, at each start. Formerly vllm owned /models/cache.
LINKED = """
mkdir /root/there
chown {by} /models/cache
runuser -u {by} -- mv {place} {place}.moved
runuser -u {by} -- ln -s {target} {place}
systemctl reset-failed vllm.service
systemctl restart vllm.service
stat -c %F:%U:%a /models/cache {engine}
stat -c %U /root/there
test ! -e /root/new || echo made
journalctl --sync
start=$(systemctl show -P InvocationID vllm.service)
journalctl -o cat _SYSTEMD_INVOCATION_ID=$start | grep -x "removed .*" || true
rm -r /root/there {place}.moved
"""


def check_links_are_not_followed(project):
    """Check that root replaces a link by the folder and reports it, leaves the target alone, and starts the engine."""
    engine = project.on_host("echo /models/cache/*").strip()
    project.on_host("! runuser -u vllm -- ln -s /root/new /models/cache/link")
    for by, place in (("vllm", engine), ("root", "/models/cache")):
        for target in ("/root/there", "/root/new"):
            script = LINKED.format(by=by, place=place, target=target, engine=engine)
            output = project.on_host(script).splitlines()
            assert output == ["directory:root:755", "directory:vllm:755", "root", f"removed '{place}'"], (
                target
            )
    project.on_host("systemctl restart vllm-readiness.service")


def test_a_replacement_with_another_offer_keeps_the_volume(projects, tmp_path):
    project = projects("fake", stack="replace")
    project.up()
    before, volume = project.machine_id(), ids(project, "vllm:spheron:Volume")
    project.cloud.pass_minutes(30)
    # Files that vllm wrote on another machine under another user id. This vllm must be able to read and write them.
    project.on_host(
        f"install -d -m 700 -o 4242 -g 4242 {OTHERS} && install -m 600 -o 4242 -g 4242 /dev/null {OTHERS}/kernel"
    )
    project.on_host(f"ln -s /etc/shadow {OTHERS}/link && chown -h 4242:4242 {OTHERS}/link")

    # Without another machine the one that serves stays, also when no preview comes first.
    block = dict(project.block)
    project.write({**block, "machine": {**block["machine"], "billing": "spot", "max_usd_per_hour": 0.0001}})
    refused = project.pulumi("up", "--yes", "--skip-preview", check=False)
    assert refused.returncode != 0
    assert "no other can be had, so it stays" in refused.stdout + refused.stderr
    assert project.machine_id() == before
    assert project.on_host("systemctl is-active vllm").strip() == "active"

    block["machine"] = {**block["machine"], "billing": "spot"}
    project.write(block)
    shown = project.pulumi("preview").stdout
    assert "replace" in shown
    assert "never two are billed" in shown
    project.up()

    assert project.machine_id() != before
    assert ids(project, "vllm:spheron:Volume") == volume
    (alive,) = [m for m in project.cloud.machines() if m["name"].startswith("replace-")]
    assert alive["id"] == project.machine_id()
    (weights,) = [r for r in project.resources() if r["type"] == "vllm:host:Weights"]
    assert weights["outputs"]["downloadedBytes"] == 0
    outputs = project.outputs()
    owners = project.on_host(f"stat -c %U {OTHERS} {OTHERS}/kernel {OTHERS}/link /etc/shadow").split()
    assert owners == ["vllm", "vllm", "vllm", "root"]
    check_links_are_not_followed(project)
    ai = client(outputs, tmp_path)
    assert next(iter(ai.models.list())).id == outputs["model"]


def test_an_h200_stack_comes_up_on_the_local_cloud(projects, tmp_path):
    """Run the shipped stack file, with only the hub and the allow-list changed."""
    import yaml
    from harness import REPOSITORY

    shipped = yaml.safe_load((REPOSITORY / "stacks" / "Pulumi.spheron-h200-2x-fp8.yaml").read_text())
    block = shipped["config"]["pulumi-vllm:server"]
    project = projects("fake", stack="spheron-h200-2x-fp8")
    project.write({**block, "access": {**block["access"], "allow": ["0.0.0.0/0", "::/0"]}})
    shown = project.pulumi("preview", "--diff").stdout
    assert "7.92" in shown
    project.up()
    outputs = project.outputs()
    assert outputs["usd_per_hour"] > 7.9
    assert "--tensor-parallel-size" in outputs["flags"]
    ai = client(outputs, tmp_path)
    assert (
        ai.chat.completions.create(
            model=outputs["model"], messages=[{"role": "user", "content": "Hello"}], max_tokens=20
        )
        .choices[0]
        .message.content
    )


@pytest.mark.all
def test_replace_on_the_command_line_rents_another_machine(projects):
    """`--replace` does not ask the provider for the order; a new machine first would adopt the old one."""
    project = projects("fake", stack="byhand")
    project.up()
    before = project.machine_id()
    project.cloud.pass_minutes(30)
    (urn,) = [r["urn"] for r in project.resources() if r["type"] == "vllm:spheron:Instance"]
    project.pulumi("up", "--yes", "--skip-preview", "--replace", urn)
    assert project.machine_id() != before
    (alive,) = [m for m in project.cloud.machines() if m["name"].startswith("byhand-")]
    assert alive["id"] == project.machine_id()
    assert set(project.changes()) == {"same"}


@pytest.mark.all
def test_machines_that_overlap_leave_no_gap(projects, tmp_path):
    project = projects("fake", stack="overlap")
    block = project.block | {"machine": project.block["machine"] | {"replace": "overlap"}}
    project.write(block)
    project.up()
    before, volumes, outputs = project.machine_id(), ids(project, "vllm:spheron:Volume"), project.outputs()
    project.cloud.pass_minutes(30)
    assert set(project.changes()) == {"same"}
    (urn,) = [r["urn"] for r in project.resources() if r["type"] == "vllm:spheron:Instance"]
    refused = project.pulumi("up", "--yes", "--skip-preview", "--replace", urn, check=False)
    assert "a replacement that overlaps needs another GPU" in refused.stdout + refused.stderr
    assert project.machine_id() == before

    project.write(block | {"machine": block["machine"] | {"billing": "spot"}})
    shown = project.pulumi("preview").stdout
    assert "Both, and both volumes, are billed until then" in shown
    failures, served_until_drained, over = [], 0, threading.Event()

    def ask() -> None:
        nonlocal served_until_drained
        ai = client(outputs, tmp_path)
        while not over.wait(0.3):
            try:
                ai.chat.completions.create(
                    model=outputs["model"], messages=[{"role": "user", "content": "Hello"}], max_tokens=3
                )
                served_until_drained += 1
            except openai.APIError as error:
                failures.append(error)
                return  # the old machine is drained once the new one answers

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        project.up()
    finally:
        over.set()
        asking.join()
    assert project.machine_id() != before
    assert ids(project, "vllm:spheron:Volume") != volumes
    assert served_until_drained > 20
    assert all(
        isinstance(error, openai.InternalServerError | openai.APIConnectionError) for error in failures
    )
    (alive,) = [m for m in project.cloud.machines() if m["name"].startswith("overlap-")]
    assert alive["id"] == project.machine_id()
    listed = project.cloud.api("/api/volumes")
    (kept,) = [v["name"] for v in listed["volumes"] if v["name"].startswith("overlap-")]
    (volume,) = [r["outputs"] for r in project.resources() if r["type"] == "vllm:spheron:Volume"]
    assert kept == volume["volumeName"]
    new = project.outputs()
    assert client(new, tmp_path).chat.completions.create(
        model=new["model"], messages=[{"role": "user", "content": "Hello"}], max_tokens=3
    )
    assert set(project.changes()) == {"same"}
