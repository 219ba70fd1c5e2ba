"""A machine that powers off by itself, and one that is ended every night: what `up` brings back, and what is kept."""

import json

import pytest
from forgotten import age, expired, status
from harness import wait_for

PAUSE = (
    "destroy",
    "--yes",
    "--skip-preview",
    "--target",
    "**$vllm:spheron:Instance::**",
    "--target-dependents",
)


def downloads(project) -> list[str]:
    rows = project.cloud.hub("GET", "/_log")
    return [row["path"] for row in rows if row["path"].endswith(".safetensors")]


def kept(project) -> dict:
    """What clients know of the server."""
    outputs = project.outputs()
    return {name: outputs[name] for name in ("ca_certificate", "api_keys")}


@pytest.mark.all
def test_up_begins_the_period_again_and_replaces_a_machine_that_has_powered_off(projects):
    project = projects("fake", owner="ana", expires="8h", idle_stop="2h")
    project.up()
    first, known = project.machine_id(), kept(project)
    assert set(project.changes()) == {"same"}, project.pulumi("preview", "--diff").stdout
    printed = project.pulumi("preview").stdout
    assert "`pulumi up` begins the period again" in printed

    age(project, lived_s=5 * 3600.0)
    shown = project.up()
    assert "1 updated" in shown, shown  # the machine's name only
    assert json.loads(project.on_host("cat /var/lib/pulumi-vllm/lifetime.json"))["lived_s"] < 8 * 3600
    project.on_host("systemctl start vllm-lifetime")
    assert json.loads(project.on_host("cat /var/lib/pulumi-vllm/lifetime.json"))["lived_s"] < 3600
    assert project.machine_id() == first
    assert set(project.changes()) == {"same"}

    age(project, lived_s=8 * 3600.0)
    wait_for(lambda: status(project) == "stopped", 120, "powered off machine")
    printed = project.pulumi("preview").stdout
    assert "powered off" in printed
    assert "showing the state of the last refresh" not in printed
    project.cloud.hub("DELETE", "/_log")
    project.cloud.pass_minutes(30)
    project.up()
    assert project.machine_id() != first
    assert (downloads(project), kept(project)) == ([], known)
    assert set(project.changes()) == {"same"}
    assert expired(project) == (0, [])


@pytest.mark.all
def test_the_machine_is_ended_for_the_night_and_keys_and_volume_stay(projects):
    """The commands of docs/how-to/schedule.md."""
    project = projects("fake")
    project.up()
    first, known = project.machine_id(), kept(project)
    project.cloud.pass_minutes(30)
    project.pulumi(*PAUSE)
    left = {one["type"] for one in project.resources()}
    assert {"vllm:spheron:Volume", "vllm:index:Authority", "vllm:index:ApiKey"} <= left
    assert "vllm:spheron:Instance" not in left
    project.cloud.hub("DELETE", "/_log")
    project.up()
    assert project.machine_id() != first
    assert (downloads(project), kept(project)) == ([], known)
    assert set(project.changes()) == {"same"}
